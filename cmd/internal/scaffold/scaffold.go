package scaffold

import (
	"bytes"
	"cmp"
	"embed"
	"errors"
	"fmt"
	"go/format"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"text/template"
)

//go:embed template
var templates embed.FS

// ErrExists is the error of a service that would be written over something.
var ErrExists = errors.New("exists already")

// A File is one that is written, or changed.
type File struct {
	Path    string // below the repository's folder, with slashes
	Content string
	Changed bool // it was there before
}

// A Plan is what a new service consists of. Nothing is written yet.
type Plan struct {
	Name  string
	Dir   string // the module's folder, below the repository's, with slashes
	Files []File // in the order in which they are written

	repository *Repository
}

// values are what templates may name.
type values struct {
	Name    string // of the service: match-history
	Package string // matchhistory
	File    string // of Go files
	GoName  string // MatchHistory, or IDBoard
	Type    string // the same
	Module  string // its path
	Dir     string // its folder, below the repository's
	Root    string // the repository's folder, seen from the module's
	Back    string // the module's folder, seen from tools
	Go      string // versions
	Testify string
}

// files are the templates by the files that they become.
func files(v values) []struct{ template, path string } {
	return []struct{ template, path string }{
		{"README.md", "README.md"},
		{"go.mod", "go.mod"},
		{"schema.yaml", "schemas/" + v.Name + ".yaml"},
		{"events.gen.go", v.Name + ".gen.go"},
		{"openapi.yaml", "openapi.yaml"},
		{"service.go", v.File + ".go"},
		{"endpoints.go", "endpoints.go"},
		{"service_test.go", v.File + "_test.go"},
		{"main.go", "cmd/" + v.Name + "/main.go"},
		{"compose.yaml", "compose.yaml"},
	}
}

// New plans a service. dir is the folder of its module, in the repository; empty for the one of its name among the services. taken are the
// names of services that there are.
func New(r *Repository, name, dir string, taken []string) (*Plan, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	for _, other := range taken {
		if other == name {
			return nil, fmt.Errorf("a service called %s %w in the suite: choose another name", name, ErrExists)
		}
	}
	if _, err := os.Stat(filepath.Join(r.folder, "events", "schemas", name+".yaml")); err == nil {
		return nil, fmt.Errorf("events/schemas/%s.yaml %w: its topics would have the same names; choose another", name, ErrExists)
	}
	place, err := absolute(cmp.Or(dir, filepath.Join(r.folder, "services", name)))
	if err != nil {
		return nil, err
	}
	relative, err := filepath.Rel(r.folder, place)
	if err != nil || !filepath.IsLocal(relative) || relative == "." {
		return nil, fmt.Errorf("%s is %w at %s: choose a folder in it", place, ErrNoRepository, r.folder)
	}
	if content, err := os.ReadDir(place); err == nil && len(content) > 0 || err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s %w: choose another name, or an empty folder with --dir", relative, ErrExists)
	}
	return plan(r, name, filepath.ToSlash(relative))
}

func plan(r *Repository, name, dir string) (*Plan, error) {
	v := values{Name: name, Package: strings.ReplaceAll(name, "-", ""), GoName: exported(name), Dir: dir, Module: path.Join(root, dir),
		Root: strings.TrimSuffix(strings.Repeat("../", strings.Count(dir, "/")+1), "/"), Back: "../" + dir}
	v.File, v.Type = v.Package, v.GoName
	var err error
	if v.Go, err = r.version(goLine); err != nil {
		return nil, err
	}
	if v.Testify, err = r.version(testifyLine); err != nil {
		return nil, err
	}
	p := &Plan{Name: name, Dir: dir, repository: r}
	for _, f := range files(v) {
		content, err := render(f.template, v)
		if err != nil {
			return nil, err
		}
		p.Files = append(p.Files, File{Path: path.Join(dir, f.path), Content: content})
	}
	sums, err := os.ReadFile(filepath.Join(r.folder, "cmd", "go.sum"))
	if err != nil {
		return nil, err
	}
	work, err := r.workspace(dir)
	if err != nil {
		return nil, err
	}
	p.Files = append(p.Files, File{Path: path.Join(dir, "go.sum"), Content: string(sums)}, File{Path: "go.work", Content: work, Changed: true})
	return p, nil
}

// render makes a file of a template. Go comes out as gofmt writes it, so that imports are in order whatever the name.
func render(name string, v values) (string, error) {
	text, err := templates.ReadFile("template/" + name + ".tmpl")
	if err != nil {
		return "", err
	}
	t, err := template.New(name).Option("missingkey=error").Parse(string(text))
	if err != nil {
		return "", err
	}
	var out bytes.Buffer
	if err := t.Execute(&out, v); err != nil {
		return "", err
	}
	if !strings.HasSuffix(name, ".go") {
		return out.String(), nil
	}
	code, err := format.Source(out.Bytes())
	if err != nil {
		return "", fmt.Errorf("%s of a service called %s is not Go: %w", name, v.Name, err)
	}
	return string(code), nil
}

// Write writes the files, none over another. What it has written of the module is removed again when it fails.
func (p *Plan) Write() (err error) {
	folder := filepath.Join(p.repository.folder, filepath.FromSlash(p.Dir))
	if err := os.MkdirAll(filepath.Dir(folder), 0o755); err != nil { //nolint:gosec // source code is for everyone to read
		return err
	}
	made := os.Mkdir(folder, 0o755) == nil //nolint:gosec // as above
	defer func() {
		if err != nil && made {
			err = errors.Join(err, os.RemoveAll(folder))
		}
	}()
	for _, f := range p.Files {
		if err := p.write(f); err != nil {
			return err
		}
	}
	return nil
}

func (p *Plan) write(f File) error {
	name := filepath.Join(p.repository.folder, filepath.FromSlash(f.Path))
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil { //nolint:gosec // as above
		return err
	}
	flags := os.O_WRONLY | os.O_CREATE | os.O_EXCL
	if f.Changed {
		flags = os.O_WRONLY | os.O_TRUNC
	}
	file, err := os.OpenFile(name, flags, 0o644) //nolint:gosec // as above
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%s %w: nothing is written over it", f.Path, ErrExists)
	}
	if err != nil {
		return err
	}
	_, err = file.WriteString(f.Content)
	return errors.Join(err, file.Close())
}
