package config

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// maxFile bounds a configuration file; a larger one is somebody's log.
const maxFile = 1 << 20

// Load reads, checks and completes the file at path. Its error has one line a
// mistake, each as "file:line: field: what is wrong".
func Load(path string) (Config, error) {
	text, err := readBounded(path)
	if err != nil {
		return Config{}, err
	}
	return Parse(path, text)
}

func readBounded(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	if len(text) > maxFile {
		return nil, fmt.Errorf("configuration: %s is larger than %d bytes", path, maxFile)
	}
	return text, nil
}

// Parse is [Load] on a text that was read already; name stands for the file
// in messages.
func Parse(name string, text []byte) (Config, error) {
	c := Default()
	mistakes := decode(text, &c)
	mistakes = append(mistakes, locate(text, c.problems())...)
	if len(mistakes) == 0 {
		return c, nil
	}
	slices.SortStableFunc(mistakes, func(a, b mistake) int { return cmp.Compare(a.line, b.line) })
	errs := make([]error, len(mistakes))
	for i, m := range mistakes {
		errs[i] = fmt.Errorf("%s:%d: %s", name, m.line, m.text)
	}
	return Config{}, errors.Join(errs...)
}

// A mistake is what is wrong on one line.
type mistake struct {
	line int
	text string
}

var yamlLine = regexp.MustCompile(`(?s)^(?:yaml: )?line (\d+): (.*)$`)

// unknownField is what the decoder says of a field that no struct has.
var unknownField = regexp.MustCompile(`^field (\S+) not found in type \S+$`)

// wrongType is what the decoder says of a value that does not fit: what stands
// there, the beginning of it if it is one value, and what Go wants.
var wrongType = regexp.MustCompile("(?s)^cannot unmarshal !!(\\w+)(?: `(.*)`)? into (\\S+)$")

func decode(text []byte, c *Config) []mistake {
	dec := yaml.NewDecoder(bytes.NewReader(text))
	dec.KnownFields(true)
	err := dec.Decode(c)
	if errors.Is(err, io.EOF) {
		return nil
	}
	if err == nil {
		var more yaml.Node
		if dec.Decode(&more) == nil {
			return []mistake{{more.Line, "a second document begins here (---), and would not be read: make one of both"}}
		}
		return nil
	}
	var typeErr *yaml.TypeError
	if !errors.As(err, &typeErr) {
		return []mistake{parseMistake(err.Error())}
	}
	found := make([]mistake, len(typeErr.Errors))
	for i, text := range typeErr.Errors {
		found[i] = parseMistake(text)
	}
	return found
}

func parseMistake(text string) mistake {
	m := mistake{line: 1, text: strings.TrimPrefix(text, "yaml: ")}
	if parts := yamlLine.FindStringSubmatch(text); parts != nil {
		m.line, _ = strconv.Atoi(parts[1])
		m.text = parts[2]
	}
	if parts := unknownField.FindStringSubmatch(m.text); parts != nil {
		m.text = fmt.Sprintf("unknown field %q", parts[1])
	}
	if parts := wrongType.FindStringSubmatch(m.text); parts != nil {
		m.text = fmt.Sprintf("%s stands here: write %s", stands(parts[1], parts[2]), wanted(parts[3]))
	}
	return m
}

// stands names what a YAML value is.
func stands(tag, value string) string {
	switch tag {
	case "map":
		return "a group of fields"
	case "seq":
		return "a list"
	}
	return strconv.Quote(value)
}

// wanted says what a field of a Go type takes.
func wanted(goType string) string {
	switch {
	case strings.HasPrefix(goType, "[]"):
		return "a list: [one, another]"
	case goType == "string", goType == "config.Mode", goType == "config.Secret":
		return "a text, in quotes if it begins with one of []{}"
	case goType == "bool":
		return "true or false"
	case strings.HasPrefix(goType, "int"), strings.HasPrefix(goType, "uint"):
		return "a whole number, of at most 18 digits"
	case strings.HasPrefix(goType, "float"):
		return "a number"
	}
	return "a group of fields, each in a line of its own: name: value"
}

// locate gives each problem the line of the field it is about, or of the
// nearest field around it.
func locate(text []byte, problems []problem) []mistake {
	var root yaml.Node
	if yaml.Unmarshal(text, &root) != nil {
		return nil // the decoder has said so already
	}
	found := make([]mistake, len(problems))
	for i, p := range problems {
		found[i] = mistake{line: lineOf(&root, p.field), text: p.field + ": " + p.text}
	}
	return found
}

// lineOf walks a path such as "logs[1].path".
func lineOf(node *yaml.Node, path string) int {
	line := 1
	if node.Kind == yaml.DocumentNode && len(node.Content) > 0 {
		node = node.Content[0]
	}
	for step := range strings.FieldsFuncSeq(path, func(r rune) bool { return r == '.' || r == '[' || r == ']' }) {
		next, at := child(node, step)
		if next == nil {
			return line
		}
		node, line = next, at
	}
	return line
}

func child(node *yaml.Node, step string) (*yaml.Node, int) {
	switch node.Kind {
	case yaml.MappingNode:
		for i := 0; i+1 < len(node.Content); i += 2 {
			if node.Content[i].Value == step {
				return node.Content[i+1], node.Content[i].Line
			}
		}
	case yaml.SequenceNode:
		if i, err := strconv.Atoi(step); err == nil && i < len(node.Content) {
			return node.Content[i], node.Content[i].Line
		}
	}
	return nil, 0
}
