package rules

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/expr-lang/expr"
	"github.com/expr-lang/expr/ast"
	"github.com/expr-lang/expr/file"
	"github.com/expr-lang/expr/vm"
)

// Limits of a condition. They bound what one costs; a useful one is far below.
const (
	maxCondition = 1000 // bytes
	maxNodes     = 200  // of its syntax tree
)

// An environment is what a condition can ask about. Its names are the
// language of the rule files: a name that is not here is a mistake on load.
type environment struct {
	Score      float64              `expr:"score"`
	Families   int                  `expr:"families"`
	Hard       string               `expr:"hard"`
	Class      string               `expr:"class"`
	Shared     bool                 `expr:"shared"`
	Messages   int                  `expr:"messages"`
	Recipients int                  `expr:"recipients"`
	Subject    string               `expr:"subject"`
	Domain     string               `expr:"domain"`
	Age        float64              `expr:"age"` // seconds
	Backlog    bool                 `expr:"backlog"`
	Evidence   func(string) float64 `expr:"evidence"`
	Foreign    float64              `expr:"foreign"`
	Second     float64              `expr:"second"`
	Minute     float64              `expr:"minute"`
	Hour       float64              `expr:"hour"`
}

// environmentNames are the names above, in the order of docs/rules.md.
var environmentNames = [...]string{
	"score", "families", "hard", "evidence", "foreign", "messages", "recipients", "age", "class", "subject", "domain",
	"shared", "backlog", "second", "minute", "hour",
}

// functionNames are the functions of the expression language that a condition
// may call. None of them loops, allocates much, fails or asks the clock.
var functionNames = [...]string{"abs", "ceil", "floor", "len", "lower", "max", "min", "round"}

func newEnvironment(f *Finding) *environment {
	return &environment{
		Score:      f.Score,
		Families:   f.Families,
		Hard:       f.Hard,
		Class:      f.Class,
		Shared:     f.Shared,
		Messages:   f.Messages,
		Recipients: f.Rcpts,
		Subject:    f.Subject,
		Domain:     f.domain(),
		Age:        f.age().Seconds(),
		Backlog:    f.Backlog,
		Evidence:   f.evidence,
		Foreign:    f.foreign(),
		Second:     1,
		Minute:     60,
		Hour:       3600,
	}
}

// A condition is a compiled expression that is either true or false of a
// finding, or fails.
type condition struct {
	text    string
	program *vm.Program
}

// holds reports whether the condition is true of what env describes. With an
// error it could not tell.
func (c *condition) holds(machine *vm.VM, env *environment) (bool, error) {
	got, err := machine.Run(c.program, env)
	if err != nil {
		return false, fmt.Errorf("condition %q: %s", c.text, plain(err))
	}
	yes, ok := got.(bool)
	if !ok {
		return false, fmt.Errorf("condition %q: answered %v, neither true nor false", c.text, got)
	}
	return yes, nil
}

// A conditionMistake is what is wrong with a condition, and where in it.
type conditionMistake struct {
	line int // from 0, within the text
	text string
}

// compile reads a condition and returns everything that is wrong with it.
func compile(text string) (*condition, []conditionMistake) {
	if len(text) > maxCondition {
		return nil, []conditionMistake{{0, fmt.Sprintf("condition has %d bytes, more than %d", len(text), maxCondition)}}
	}
	if strings.TrimSpace(text) == "" {
		return nil, []conditionMistake{{0, "condition is empty: write true for always"}}
	}
	grammar := &grammar{source: file.NewSource(text)}
	options := []expr.Option{
		expr.Env(&environment{}), expr.AsBool(), expr.WarnOnAny(), expr.MaxNodes(maxNodes),
		expr.DisableAllBuiltins(), expr.Patch(grammar),
	}
	for _, name := range functionNames {
		options = append(options, expr.EnableBuiltin(name))
	}
	program, err := expr.Compile(text, options...)
	if len(grammar.mistakes) > 0 {
		return nil, grammar.mistakes
	}
	if err != nil {
		return nil, []conditionMistake{describe(err)}
	}
	return &condition{strings.Join(strings.Fields(text), " "), program}, nil
}

// describe turns the compiler's error into one line of ours.
func describe(err error) conditionMistake {
	m := conditionMistake{text: plain(err)}
	var at *file.Error
	if errors.As(err, &at) && at.Line > 0 {
		m.line = at.Line - 1
	}
	if strings.HasPrefix(m.text, "unknown name") {
		m.text += "; known names: " + oneOf(environmentNames[:]) + ", " + oneOf(functionNames[:])
	}
	return m
}

// plain returns the message of an error of the expression language without
// the picture of the source below it.
func plain(err error) string {
	var at *file.Error
	if errors.As(err, &at) {
		return at.Message
	}
	first, _, _ := strings.Cut(err.Error(), "\n")
	return first
}

// A grammar walks a condition and notes what the language has but conditions
// have not (loops, ranges, indexes, variables that could double a text: all
// that could cost or fail), and names that are outside of their closed set.
type grammar struct {
	source   file.Source
	mistakes []conditionMistake
}

// Visit implements [ast.Visitor].
func (g *grammar) Visit(node *ast.Node) {
	switch n := (*node).(type) {
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.StringNode, *ast.UnaryNode,
		*ast.ConditionalNode, *ast.ArrayNode:
	case *ast.PredicateNode, *ast.PointerNode: // parts of a loop, which is refused as a whole
	case *ast.IdentifierNode:
		if n.Value == "$env" {
			g.reject(n, "$env cannot be used in a condition")
		}
	case *ast.BuiltinNode:
		if !slices.Contains(functionNames[:], n.Name) {
			g.reject(n, "function %s cannot be used in a condition; known: %s", n.Name, oneOf(functionNames[:]))
		}
	case *ast.BinaryNode:
		g.binary(n)
	case *ast.CallNode:
		g.call(n)
	default:
		g.reject(n, "a condition compares fields with numbers and texts; %s is more than that", n)
	}
}

func (g *grammar) binary(n *ast.BinaryNode) {
	switch n.Operator {
	case "..":
		g.reject(n, "ranges cannot be used in a condition: compare with >= and <=")
	case "matches":
		if _, ok := n.Right.(*ast.StringNode); !ok {
			g.reject(n, "matches wants its pattern as text in quotes")
		}
	case "==", "!=":
		g.class(n.Left, n.Right)
		g.class(n.Right, n.Left)
	case "in":
		list, ok := n.Right.(*ast.ArrayNode)
		if !ok {
			return
		}
		for _, element := range list.Nodes {
			g.class(n.Left, element)
		}
	}
}

// class checks a text that field is compared with, if the field is the class.
func (g *grammar) class(field, value ast.Node) {
	id, isName := field.(*ast.IdentifierNode)
	text, isText := value.(*ast.StringNode)
	if !isName || !isText || id.Value != "class" || slices.Contains(classNames[:], text.Value) {
		return
	}
	g.reject(value, "unknown class %q; known: %s", text.Value, oneOf(classNames[1:]))
}

// call lets nothing be called but evidence, with a known family.
func (g *grammar) call(n *ast.CallNode) {
	callee, ok := n.Callee.(*ast.IdentifierNode)
	if !ok || callee.Value != "evidence" {
		g.reject(n, "only evidence(…) and the functions %s can be called", oneOf(functionNames[:]))
		return
	}
	if len(n.Arguments) != 1 {
		g.reject(n, "evidence wants one family, as in evidence(%q)", Novelty)
		return
	}
	family, ok := n.Arguments[0].(*ast.StringNode)
	if !ok {
		g.reject(n, "evidence wants its family as text in quotes, as in evidence(%q)", Novelty)
		return
	}
	if !slices.Contains(familyNames[:], family.Value) {
		g.reject(n, "unknown family of evidence %q; known: %s", family.Value, oneOf(familyNames[:]))
	}
}

func (g *grammar) reject(n ast.Node, format string, args ...any) {
	at := (&file.Error{Location: n.Location()}).Bind(g.source)
	g.mistakes = append(g.mistakes, conditionMistake{at.Line - 1, fmt.Sprintf(format, args...)})
}
