package schema

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// Read reads every .yaml file in the root of files. Messages name a file as label/name. The error is an [Errors] when the
// schemas are wrong, and another when they could not be read.
func Read(files fs.FS, label string) (*Set, error) {
	names, err := fs.Glob(files, "*.yaml")
	if err != nil {
		return nil, fmt.Errorf("list the schemas in %s: %w", label, err)
	}
	if len(names) == 0 {
		return nil, fmt.Errorf("there are no schemas in %s: expected files that end in .yaml", label)
	}
	slices.Sort(names)
	set := new(Set)
	var mistakes Errors
	for _, name := range names {
		content, err := fs.ReadFile(files, name)
		if err != nil {
			return nil, fmt.Errorf("read a schema: %w", err)
		}
		r := reader{path: path.Join(label, name), name: name, errs: &mistakes}
		set.Files = append(set.Files, r.file(content))
	}
	check(set, &mistakes)
	if err := mistakes.Err(); err != nil {
		return nil, err
	}
	return set, nil
}

var (
	ownerName   = regexp.MustCompile(`^[a-z][a-z0-9]*(-[a-z0-9]+)*$`)
	topicName   = regexp.MustCompile(`^[a-z][a-z0-9]*([.-][a-z0-9]+)*$`)
	handlerName = regexp.MustCompile(`^[a-z][a-z0-9]*(-[a-z0-9]+)*$`)
	typeName    = regexp.MustCompile(`^[A-Z][A-Za-z0-9]*$`)
	memberName  = regexp.MustCompile(`^[a-z][A-Za-z0-9]*$`)
	errorLine   = regexp.MustCompile(`(?s)^yaml: line (\d+): (.*)$`)
	parserError = regexp.MustCompile(`^did not find expected (<|node content|'-'|key|',')|^found (undefined|duplicate|incompatible) `)
)

// A reader reads one file. Every method notes mistakes and goes on with what can be made of the rest.
type reader struct {
	path  string // for messages
	name  string // in the folder
	lines int    // that the file has
	errs  *Errors
	out   *File
}

func (r *reader) at(n *yaml.Node) Pos { return r.line(n.Line) }

// line is a line of the file. The YAML package places what is missing at the end of the file one or two lines behind it.
func (r *reader) line(n int) Pos { return Pos{r.path, max(min(n, r.lines), 1)} }

func (r *reader) fail(n *yaml.Node, format string, args ...any) {
	r.errs.Add(r.at(n), format, args...)
}

func (r *reader) file(content []byte) *File {
	owner := strings.TrimSuffix(r.name, ".yaml")
	r.out = &File{Owner: owner, Path: r.path}
	r.lines = 1 + bytes.Count(bytes.TrimSuffix(content, []byte("\n")), []byte("\n"))
	if !ownerName.MatchString(owner) || owner == "registry" {
		r.errs.Add(Pos{r.path, 1},
			"%q cannot be an owner: the file's name must be lower-case words with dashes, and not registry", owner)
	}
	root := r.parse(content)
	if root == nil {
		return r.out
	}
	top := r.mapping(root, "a schema file", "description", "topics", "x-event-subscriptions", "components")
	r.out.Description = r.description(root, top, "the file")
	if n := top.get("topics"); n != nil {
		r.topics(n)
	}
	if n := top.get("components"); n != nil {
		if schemas := r.mapping(n, "components", "schemas").get("schemas"); schemas != nil {
			for _, e := range r.mapping(schemas, "schemas").entries {
				r.declared(e)
			}
		}
	}
	if n := top.get("x-event-subscriptions"); n != nil {
		r.subscriptions(n)
	}
	return r.out
}

// parse returns the root of the one document in content, nil if there is none.
func (r *reader) parse(content []byte) *yaml.Node {
	dec := yaml.NewDecoder(bytes.NewReader(content))
	var doc, more yaml.Node
	err := dec.Decode(&doc)
	if errors.Is(err, io.EOF) || err == nil && (len(doc.Content) == 0 || doc.Content[0].Tag == "!!null") {
		r.errs.Add(Pos{r.path, 1}, "the file is empty")
		return nil
	}
	if err == nil {
		if err = dec.Decode(&more); err == nil {
			r.fail(&more, "the file holds a second document: keep one schema in a file")
		} else if errors.Is(err, io.EOF) {
			err = nil
		}
	}
	if err != nil {
		line, message := place(err)
		r.errs.Add(r.line(line), "not YAML: %s", message)
		return nil
	}
	return doc.Content[0]
}

// place takes the line out of an error of the YAML package, which gives it in its text only: counted from 1 when the
// scanner fails, from 0 when the parser does, and not at all on the first line.
func place(err error) (line int, message string) {
	m := errorLine.FindStringSubmatch(err.Error())
	if m == nil {
		return 1, strings.TrimPrefix(err.Error(), "yaml: ")
	}
	line, _ = strconv.Atoi(m[1])
	if parserError.MatchString(m[2]) {
		line++
	}
	return line, m[2]
}

func (r *reader) topics(n *yaml.Node) {
	for _, e := range r.mapping(n, "topics").entries {
		t := &Topic{Pos: r.at(e.key), Name: e.key.Value}
		if !topicName.MatchString(t.Name) || len(t.Name) > 200 {
			r.fail(e.key, "topic %q is not lower-case words with dots and dashes between them, of at most 200 letters", t.Name)
		}
		of := fmt.Sprintf("topic %q", t.Name)
		m := r.mapping(e.value, of, "event", "description")
		t.Description = r.description(e.key, m, of)
		t.Event = r.typeRef(e.key, m, of)
		r.out.Topics = append(r.out.Topics, t)
	}
}

func (r *reader) subscriptions(n *yaml.Node) {
	for _, item := range r.sequence(n, "x-event-subscriptions") {
		m := r.mapping(item, "a subscription", "topic", "event", "handler")
		s := &Subscription{Pos: r.at(item)}
		if topic := r.required(item, m, "topic", "a subscription"); topic != nil {
			s.Topic, s.topicPos = topic.Value, r.at(topic)
		}
		s.Event = r.typeRef(item, m, "a subscription")
		if handler := r.required(item, m, "handler", "a subscription"); handler != nil {
			s.Handler = handler.Value
			if !handlerName.MatchString(s.Handler) {
				r.fail(handler, "handler %q is not lower-case words with dashes", s.Handler)
			}
		}
		r.out.Subscriptions = append(r.out.Subscriptions, s)
	}
}

// typeRef reads the event of a topic or subscription: the name of a type in any file.
func (r *reader) typeRef(parent *yaml.Node, m mapping, of string) Ref {
	event := r.required(parent, m, "event", of)
	if event == nil {
		return Ref{}
	}
	return Ref{Pos: r.at(event), Name: event.Value}
}

func (r *reader) description(parent *yaml.Node, m mapping, of string) string {
	n := r.required(parent, m, "description", of)
	if n == nil {
		return ""
	}
	return strings.Join(strings.Fields(n.Value), " ")
}

// required returns the text of a key that must be there, nil (and a mistake noted) if it is not.
func (r *reader) required(parent *yaml.Node, m mapping, key, of string) *yaml.Node {
	n := m.get(key)
	if n == nil {
		if m.ok {
			r.fail(parent, "%s has no %s", of, key)
		}
		return nil
	}
	return r.text(n, key)
}

// text returns n if it is a string with something in it that Go code can hold too, else nil and a mistake noted.
func (r *reader) text(n *yaml.Node, what string) *yaml.Node {
	if n.Kind != yaml.ScalarNode || n.Tag != "!!str" {
		r.fail(n, "%s must be a string", what)
		return nil
	}
	if strings.TrimSpace(n.Value) == "" {
		r.fail(n, "%s must not be empty", what)
		return nil
	}
	if i := strings.IndexFunc(n.Value, unprintable); i >= 0 {
		r.fail(n, "%s must not hold the character %q", what, []rune(n.Value[i:])[0])
		return nil
	}
	return n
}

func unprintable(r rune) bool {
	return r == utf8.RuneError || !unicode.IsPrint(r) && !unicode.IsSpace(r)
}

func (r *reader) sequence(n *yaml.Node, what string) []*yaml.Node {
	if n.Kind != yaml.SequenceNode {
		r.fail(n, "%s must be a list", what)
		return nil
	}
	return n.Content
}

// A mapping is a YAML mapping whose keys are strings, each there once.
type mapping struct {
	ok      bool // it was a mapping
	entries []entry
}

type entry struct{ key, value *yaml.Node }

func (m mapping) get(key string) *yaml.Node {
	for _, e := range m.entries {
		if e.key.Value == key {
			return e.value
		}
	}
	return nil
}

// mapping reads n as a mapping with no keys but the known ones; with any, if none are given.
func (r *reader) mapping(n *yaml.Node, what string, known ...string) (m mapping) {
	if n.Kind != yaml.MappingNode {
		r.fail(n, "%s must be a mapping", what)
		return m
	}
	m.ok = true
	first := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		if key.Kind != yaml.ScalarNode || key.Tag != "!!str" {
			r.fail(key, "a key of %s must be a string", what)
			continue
		}
		if line, dup := first[key.Value]; dup {
			r.duplicate(key, what, line)
			continue
		}
		first[key.Value] = key.Line
		if len(known) > 0 && !slices.Contains(known, key.Value) {
			r.fail(key, "unknown key %q in %s: it may have %s", key.Value, what, strings.Join(known, ", "))
			continue
		}
		m.entries = append(m.entries, entry{key, value})
	}
	return m
}

func (r *reader) duplicate(key *yaml.Node, what string, line int) {
	before := Pos{r.path, line}
	switch what {
	case "topics":
		r.fail(key, "topic %q is already declared in %s", key.Value, before)
	case "schemas":
		r.fail(key, "type %q is already declared in %s", key.Value, before)
	default:
		r.fail(key, "key %q of %s is already in %s", key.Value, what, before)
	}
}
