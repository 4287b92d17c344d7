package recipe

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"reflect"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write docs/recipe.md anew")

const reference = "../../docs/recipe.md"

const preface = `# The recipe
One JSON document is the whole input of a fine-tune:
` + "`temporal workflow start --type FineTune --task-queue finetune --input-file recipe.json`" + `.
Keys that are left out take their default; unknown keys, wrong types and broken rules are refused, all at once and each by
its path. Durations are strings such as ` + "`\"90s\"` or `\"1h30m\"`" + `. Endpoints and secrets come from the worker's environment,
never from a recipe. Complete recipes are in [workflows/recipes](../workflows/recipes).

This page is made from internal/recipe/recipe.go by ` + "`go generate ./internal/recipe`" + `.
`

// TestReference holds docs/recipe.md to the code's comments and defaults.
func TestReference(t *testing.T) {
	got := renderReference(t)
	if *update {
		if err := os.WriteFile(reference, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(reference)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("docs/recipe.md is not up to date (%v): run go generate ./internal/recipe", err)
	}
}

func renderReference(t *testing.T) []byte {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "recipe.go", nil, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	docs := map[string]*ast.GenDecl{}
	for _, decl := range file.Decls {
		if d, ok := decl.(*ast.GenDecl); ok && d.Tok == token.TYPE {
			docs[d.Specs[0].(*ast.TypeSpec).Name.Name] = d
		}
	}
	b := bytes.NewBufferString(preface)
	section(t, b, docs, "", reflect.ValueOf(Defaults()))
	return b.Bytes()
}

// section writes the table of one struct and then those of the structs in it.
func section(t *testing.T, b *bytes.Buffer, docs map[string]*ast.GenDecl, path string, v reflect.Value) {
	decl := docs[v.Type().Name()]
	if decl == nil {
		t.Fatalf("%s has no declaration in recipe.go", v.Type())
	}
	if path != "" {
		_, text, _ := strings.Cut(strings.TrimSpace(decl.Doc.Text()), " ")
		text = strings.TrimPrefix(text, "is ")
		fmt.Fprintf(b, "\n## %s\n%s%s\n", path, strings.ToUpper(text[:1]), strings.ReplaceAll(text[1:], "\n", " "))
	}
	b.WriteString("\n| key | type | default | |\n| --- | --- | --- | --- |\n")
	comments := decl.Specs[0].(*ast.TypeSpec).Type.(*ast.StructType).Fields.List
	for i := range v.NumField() {
		field, value := v.Type().Field(i), v.Field(i)
		comment := strings.TrimSpace(comments[i].Comment.Text())
		if value.Kind() == reflect.Struct {
			comment = fmt.Sprintf("see [below](#%s)", strings.ReplaceAll(join(path, key(field)), ".", ""))
		}
		if comment == "" {
			t.Errorf("%s.%s has no comment", v.Type(), field.Name)
		}
		comment, required := strings.CutSuffix(comment, "; required")
		fmt.Fprintf(b, "| `%s` | %s | %s | %s |\n", key(field), typeName(field.Type), defaultOf(value, required), strings.ReplaceAll(comment, "|", `\|`))
	}
	for i := range v.NumField() {
		field, value := v.Type().Field(i), v.Field(i)
		if value.Kind() == reflect.Slice && value.Type().Elem().Kind() == reflect.Struct && value.Type().Elem() != reflect.TypeFor[Text]() {
			section(t, b, docs, join(path, key(field))+"[]", reflect.Zero(value.Type().Elem()))
		} else if value.Kind() == reflect.Struct {
			section(t, b, docs, join(path, key(field)), value)
		}
	}
}

func typeName(t reflect.Type) string {
	switch {
	case t == reflect.TypeFor[Duration]():
		return "duration"
	case t == reflect.TypeFor[Text]():
		return "text"
	case t.Kind() == reflect.Slice:
		return "array of " + typeName(t.Elem())
	case t.Kind() == reflect.Struct:
		return "object"
	case t.Kind() == reflect.Bool:
		return "boolean"
	case t.Kind() == reflect.Float64:
		return "number"
	case t.Kind() == reflect.Int || t.Kind() == reflect.Int64:
		return "integer"
	}
	return t.Kind().String()
}

func defaultOf(v reflect.Value, required bool) string {
	if required {
		return "**required**"
	}
	if v.Kind() == reflect.Struct || v.Kind() == reflect.Slice && v.IsNil() {
		return ""
	}
	body, err := json.Marshal(v.Interface())
	if err != nil {
		return err.Error()
	}
	return "`" + string(body) + "`"
}
