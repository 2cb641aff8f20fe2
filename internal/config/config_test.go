package config

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"
)

func TestDefaultIsValidAndObserves(t *testing.T) {
	c, err := Parse("empty", nil)
	if err != nil {
		t.Fatal(err)
	}
	if c.Mode != ModeObserve {
		t.Errorf("mode = %q, want observe", c.Mode)
	}
}

// Each testdata/invalid-*.yml has its messages, whole, in the .txt beside it.
func TestMistakes(t *testing.T) {
	files, _ := filepath.Glob("testdata/invalid-*.yml")
	if len(files) == 0 {
		t.Fatal("no cases")
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			_, err := Load(file)
			if err == nil {
				t.Fatal("accepted")
			}
			want, readErr := os.ReadFile(strings.TrimSuffix(file, ".yml") + ".txt")
			if readErr != nil {
				t.Fatalf("%v; got:\n%v", readErr, err)
			}
			if diff := cmp.Diff(err.Error()+"\n", string(want)); diff != "" {
				t.Errorf("messages (-got +want):\n%s", diff)
			}
		})
	}
}

func TestLoadNamesTheFile(t *testing.T) {
	_, err := Load("testdata/absent.yml")
	if err == nil || !strings.Contains(err.Error(), "testdata/absent.yml") {
		t.Errorf("error = %v, want the file's name in it", err)
	}
}

func TestExampleIsValid(t *testing.T) {
	if _, err := Load("../../config.example.yaml"); err != nil {
		t.Error(err)
	}
}

// The example and the documentation name every field there is.
func TestEveryFieldIsDocumented(t *testing.T) {
	for _, file := range []string{"../../config.example.yaml", "../../docs/configuration.md"} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range fields(reflect.TypeFor[Config](), "") {
			name := path[strings.LastIndex(path, ".")+1:]
			if strings.HasSuffix(file, ".md") {
				name = "`" + path + "`"
			} else {
				name += ":"
			}
			if !bytes.Contains(text, []byte(name)) {
				t.Errorf("%s does not mention %s (%s)", file, name, path)
			}
		}
	}
}

// The example's values are the defaults wherever it does not comment a field out.
func TestFieldsOfTheExampleExist(t *testing.T) {
	text, err := os.ReadFile("../../config.example.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var uncommented []string
	for line := range strings.Lines(string(text)) {
		trimmed := strings.TrimLeft(line, " ")
		if rest, ok := strings.CutPrefix(trimmed, "#- "); ok {
			line = line[:len(line)-len(trimmed)] + "- " + rest
		} else if rest, ok := strings.CutPrefix(trimmed, "#"); ok && !strings.HasPrefix(rest, " ") {
			line = line[:len(line)-len(trimmed)] + rest
		}
		uncommented = append(uncommented, line)
	}
	dec := yaml.NewDecoder(strings.NewReader(strings.Join(uncommented, "")))
	dec.KnownFields(true)
	var c Config
	if err := dec.Decode(&c); err != nil {
		t.Errorf("with its commented fields switched on: %v", err)
	}
}

func fields(typ reflect.Type, prefix string) []string {
	var found []string
	for i := range typ.NumField() {
		f := typ.Field(i)
		path := prefix + f.Tag.Get("yaml")
		elem := f.Type
		if elem.Kind() == reflect.Slice {
			elem = elem.Elem()
		}
		if elem.Kind() == reflect.Struct {
			found = append(found, fields(elem, path+".")...)
			continue
		}
		found = append(found, path)
	}
	return found
}

func TestSecretNeverShows(t *testing.T) {
	const plain = "hunter2-and-more"
	inside := struct{ Token Secret }{plain}
	var out bytes.Buffer
	for _, value := range []any{Secret(plain), inside, &inside} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%q", "%s"} {
			fmt.Fprintf(&out, verb, value)
		}
		j, err := json.Marshal(value)
		if err != nil {
			t.Fatal(err)
		}
		out.Write(j)
		y, err := yaml.Marshal(value)
		if err != nil {
			t.Fatal(err)
		}
		out.Write(y)
		slog.New(slog.NewTextHandler(&out, nil)).Info("x", "v", value)
		slog.New(slog.NewJSONHandler(&out, nil)).Info("x", "v", value)
	}
	if strings.Contains(out.String(), plain) {
		t.Errorf("the secret shows in:\n%s", out.String())
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("mode: enforce\nlogs: [{path: /x}]\n"))
	f.Add([]byte("logs: [{journal: [a]}]\nkeep: {findings: 30d}\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		c, err := Parse("f", text)
		if err == nil && len(c.problems()) > 0 {
			t.Errorf("accepted with problems: %v", c.problems())
		}
	})
}
