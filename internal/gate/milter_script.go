package gate

import (
	"strconv"
	"strings"
	"unicode/utf8"
)

// The headers in which PHP names the script that sends: its own, with
// mail.add_x_header, and that of cPanel's PHP.
const (
	headerOriginating = "X-PHP-Originating-Script"
	headerScript      = "X-PHP-Script"
)

// Postfix logs so much of a header, its name included, that a header check
// matches. The log and the milter must know a script by the same name.
const maxLoggedHeader = 200

// readScript reads the script out of a header that names one: UID:FILE from
// PHP's own, HOST/PATH and -1 from cPanel's. It agrees with what package mailq
// reads in the log. What has white space in it is cut there; so code in an
// eval(), "x.php(3) : eval()'d code", is the file's that it stands in.
func readScript(header, value string) (uid int, script string, ok bool) {
	value = logged(value[:min(len(value), maxLoggedHeader-len(header)-len(": "))])
	switch header {
	case headerOriginating:
		script, rest, cut := strings.Cut(value, " ")
		if cut && strings.HasPrefix(rest, ": ") {
			script = cutEval(script)
		}
		number, file, _ := strings.Cut(script, ":")
		uid, ok = readUID(number)
		return uid, script, ok && file != ""
	case headerScript:
		script, _, ok = strings.Cut(value, " for ")
		script, _, _ = strings.Cut(script, " ")
		return -1, script, ok && script != ""
	}
	return -1, "", false
}

// cutEval takes the number of a line, "(3)", off the end of a name.
func cutEval(script string) string {
	if name, found := strings.CutSuffix(script, ")"); found {
		if i := strings.LastIndexByte(name, '('); i >= 0 && i+1 < len(name) && strings.Trim(name[i+1:], "0123456789") == "" {
			return name[:i]
		}
	}
	return script
}

// readUID reads a number of at most ten digits, without a sign.
func readUID(text string) (int, bool) {
	if text == "" || len(text) > 10 || strings.Trim(text, "0123456789") != "" {
		return 0, false
	}
	uid, err := strconv.Atoi(text)
	return uid, err == nil
}

// logged is a text as Postfix logs it: question marks for control characters
// and for what is not UTF-8.
func logged(text string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == utf8.RuneError {
			return '?'
		}
		return r
	}, text)
}
