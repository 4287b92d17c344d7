package lint

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
)

const (
	module  = "github.com/duratune/duratune"
	rootDir = "../.."
)

// source is one Go file of the repository.
type source struct {
	path  string // from the root, with slashes
	dir   string
	lines int
	file  *ast.File
	fset  *token.FileSet
	text  string
}

// test reports whether the file is a test, or of a package that only tests use, such as hubtest.
func (s *source) test() bool {
	return strings.HasSuffix(s.path, "_test.go") || strings.HasSuffix(s.dir, "test")
}

func (s *source) main() bool { return s.file.Name.Name == "main" }

func (s *source) imports() []string {
	var paths []string
	for _, spec := range s.file.Imports {
		if p, err := strconv.Unquote(spec.Path.Value); err == nil {
			paths = append(paths, p)
		}
	}
	return paths
}

// at names a place for an error message.
func (s *source) at(n ast.Node) string {
	return fmt.Sprintf("%s:%d", s.path, s.fset.Position(n.Pos()).Line)
}

var sources = sync.OnceValues(func() ([]*source, error) {
	var all []*source
	err := filepath.WalkDir(rootDir, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := d.Name()
		nested := path != rootDir && exists(filepath.Join(path, "go.mod"))
		if d.IsDir() && (nested || name == "testdata" || name == "bin" || name == "node_modules" || len(name) > 2 && name[0] == '.') {
			return filepath.SkipDir
		}
		if d.IsDir() || filepath.Ext(path) != ".go" {
			return nil
		}
		s, err := parse(path)
		all = append(all, s)
		return err
	})
	return all, err
})

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func parse(path string) (*source, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	rel, err := filepath.Rel(rootDir, path)
	if err != nil {
		return nil, err
	}
	s := &source{path: filepath.ToSlash(rel), text: string(text), lines: strings.Count(string(text), "\n"), fset: token.NewFileSet()}
	s.dir = filepath.ToSlash(filepath.Dir(s.path))
	s.file, err = parser.ParseFile(s.fset, path, text, parser.ParseComments|parser.SkipObjectResolution)
	return s, err
}

func allSources(t *testing.T) []*source {
	t.Helper()
	all, err := sources()
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 50 {
		t.Fatalf("found %d Go files, want the whole repository", len(all))
	}
	return all
}

// TestSizes: what does not fit on a few screens is not understood in one reading.
func TestSizes(t *testing.T) {
	const maxFile, maxFunc = 500, 80
	for _, s := range allSources(t) {
		if s.lines > maxFile {
			t.Errorf("%s has %d lines, want at most %d", s.path, s.lines, maxFile)
		}
		for _, d := range s.file.Decls {
			f, ok := d.(*ast.FuncDecl)
			if !ok {
				continue
			}
			n := s.fset.Position(f.End()).Line - s.fset.Position(f.Pos()).Line + 1
			if n > maxFunc {
				t.Errorf("%s: %s has %d lines, want at most %d", s.at(f), f.Name.Name, n, maxFunc)
			}
		}
	}
}

// TestDocs: every package says what it is, every exported name what it is for.
func TestDocs(t *testing.T) {
	documented := map[string]bool{}
	for _, s := range allSources(t) {
		if s.test() {
			continue
		}
		documented[s.dir] = documented[s.dir] || s.file.Doc != nil
		if s.main() {
			continue
		}
		for _, d := range s.file.Decls {
			for _, name := range undocumented(d) {
				t.Errorf("%s: exported %s has no doc comment", s.at(d), name)
			}
		}
	}
	for dir, ok := range documented {
		if !ok {
			t.Errorf("package %s has no doc comment", dir)
		}
	}
}

// undocumented lists the exported names of a declaration that no comment belongs to. A group's comment counts for all of
// its names, and so does one at the end of a line.
func undocumented(d ast.Decl) []string {
	switch d := d.(type) {
	case *ast.FuncDecl:
		if d.Name.IsExported() && d.Doc == nil && exportedReceiver(d) {
			return []string{d.Name.Name}
		}
	case *ast.GenDecl:
		if d.Doc != nil {
			return nil
		}
		var names []string
		for _, spec := range d.Specs {
			switch s := spec.(type) {
			case *ast.TypeSpec:
				if s.Name.IsExported() && s.Doc == nil && s.Comment == nil {
					names = append(names, s.Name.Name)
				}
			case *ast.ValueSpec:
				if s.Doc == nil && s.Comment == nil {
					for _, n := range s.Names {
						if n.IsExported() {
							names = append(names, n.Name)
						}
					}
				}
			}
		}
		return names
	}
	return nil
}

// wellKnown methods need no words: their interface says it all.
var wellKnown = []string{"Error", "Unwrap", "Is", "String", "Close", "Read", "Write", "Len", "Less", "Swap", "MarshalJSON", "UnmarshalJSON"}

// exportedReceiver reports whether a function can be seen from outside.
func exportedReceiver(f *ast.FuncDecl) bool {
	if f.Recv == nil {
		return true
	}
	if slices.Contains(wellKnown, f.Name.Name) {
		return false
	}
	typ := f.Recv.List[0].Type
	for {
		switch t := typ.(type) {
		case *ast.StarExpr:
			typ = t.X
		case *ast.IndexExpr:
			typ = t.X
		case *ast.IndexListExpr:
			typ = t.X
		case *ast.Ident:
			return t.IsExported()
		default:
			return true
		}
	}
}

// TestNothingEndsTheProcess: a library returns errors; a worker that dies for one takes a run's device with it. gotch's
// Must functions end the process, and not even by a panic. In a package variable a Must of a constant is fine;
// elsewhere, "//nolint:forbidigo // reason" at the end of the line is an excuse.
func TestNothingEndsTheProcess(t *testing.T) {
	for _, s := range allSources(t) {
		if s.test() || s.main() {
			continue
		}
		for _, d := range s.file.Decls {
			f, ok := d.(*ast.FuncDecl)
			if !ok {
				continue
			}
			ast.Inspect(f, func(n ast.Node) bool {
				if call, ok := n.(*ast.CallExpr); ok && ends(callee(call)) && !s.excused(call) {
					t.Errorf("%s: %s ends the process: return an error", s.at(call), callee(call))
				}
				return true
			})
		}
	}
}

// excused reports whether the line says why the rule is broken, in the form that golangci-lint takes too.
func (s *source) excused(n ast.Node) bool {
	line := s.fset.Position(n.Pos()).Line
	return strings.Contains(strings.Split(s.text, "\n")[line-1], "//nolint:forbidigo // ")
}

// callee is the name that a call is written with: "panic", "log.Fatal", "x.MustAdd".
func callee(call *ast.CallExpr) string {
	switch f := call.Fun.(type) {
	case *ast.Ident:
		return f.Name
	case *ast.SelectorExpr:
		if x, ok := f.X.(*ast.Ident); ok {
			return x.Name + "." + f.Sel.Name
		}
		return "." + f.Sel.Name
	}
	return ""
}

func ends(name string) bool {
	_, method, _ := strings.Cut(name, ".")
	switch {
	case name == "panic", name == "os.Exit", strings.HasPrefix(name, "log.Fatal"), strings.HasPrefix(name, "log.Panic"):
		return true
	default:
		return len(method) > 4 && strings.HasPrefix(method, "Must") && method[4] >= 'A' && method[4] <= 'Z'
	}
}
