package facade

import (
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"
)

// An expression is evaluated over an event. Its value is one of JSON as Go reads it: nil, bool, float64, string, []any or map[string]any.
type expression func(event map[string]any) (any, error)

// errMissing is a member that is not there.
var errMissing = errors.New("no such member")

// A parser reads an expression, from the operators that bind least to those that bind most.
type parser struct {
	text  string
	at    int
	depth int
}

// maxDepth bounds how deep an expression, or the filter of a query, may be nested.
const maxDepth = 100

func (p *parser) whole() (expression, error) {
	e, err := p.either()
	if err == nil && p.peek() != "" {
		err = p.unexpected()
	}
	return e, err
}

func (p *parser) unexpected() error {
	return fmt.Errorf("%q at character %d is not understood", p.peek(), p.at+1)
}

// token matches one: a string, a number, a name, or a sign of one or two characters.
var token = regexp.MustCompile(`^(?:"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|\d+(?:\.\d+)?|[A-Za-z_]\w*|==|!=|<=|>=|&&|\|\||.)`)

func (p *parser) peek() string {
	for p.at < len(p.text) && strings.IndexByte(" \t\r\n", p.text[p.at]) >= 0 {
		p.at++
	}
	return token.FindString(p.text[p.at:])
}

// take goes on when the next token is one of these, and returns it.
func (p *parser) take(signs ...string) string {
	next := p.peek()
	for _, sign := range signs {
		if next == sign {
			p.at += len(next)
			return next
		}
	}
	return ""
}

func (p *parser) want(sign string) error {
	if p.take(sign) == "" {
		return p.unexpected()
	}
	return nil
}

func (p *parser) either() (expression, error) { return p.chain("||", p.both) }
func (p *parser) both() (expression, error)   { return p.chain("&&", p.comparison) }

// chain reads operands of && or ||. As in CEL, an operand that cannot be evaluated does not matter where another one decides.
func (p *parser) chain(sign string, operand func() (expression, error)) (expression, error) {
	if p.depth++; p.depth > maxDepth {
		return nil, errors.New("it is nested too deep")
	}
	defer func() { p.depth-- }()
	left, err := operand()
	for err == nil && p.take(sign) != "" {
		var right expression
		first := left
		right, err = operand()
		left = func(event map[string]any) (any, error) { return decide(sign == "||", first, right, event) }
	}
	return left, err
}

func decide(decisive bool, left, right expression, event map[string]any) (any, error) {
	a, failure := left(event)
	if failure == nil && a == any(decisive) {
		return decisive, nil
	}
	b, err := right(event)
	switch {
	case err == nil && b == any(decisive):
		return decisive, nil
	case failure != nil:
		return nil, failure
	}
	return b, err
}

func (p *parser) comparison() (expression, error) {
	left, err := p.unary()
	if err != nil {
		return nil, err
	}
	sign := p.take("==", "!=", "<=", ">=", "<", ">", "in")
	if sign == "" {
		return left, nil
	}
	right, err := p.unary()
	return func(event map[string]any) (any, error) {
		a, err := left(event)
		if err != nil {
			return nil, err
		}
		b, err := right(event)
		if err != nil {
			return nil, err
		}
		return compareValues(sign, a, b)
	}, err
}

func compareValues(sign string, a, b any) (any, error) {
	switch sign {
	case "==":
		return reflect.DeepEqual(a, b), nil
	case "!=":
		return !reflect.DeepEqual(a, b), nil
	case "in":
		return contained(a, b)
	}
	order := 0
	switch x := a.(type) {
	case float64:
		y, ok := b.(float64)
		if !ok {
			return nil, errors.New("a number is compared with something else")
		}
		if x != y {
			order = 1
			if x < y {
				order = -1
			}
		}
	case string:
		y, ok := b.(string)
		if !ok {
			return nil, errors.New("a string is compared with something else")
		}
		order = strings.Compare(x, y)
	default:
		return nil, errors.New("only numbers and strings have an order")
	}
	switch sign {
	case "<":
		return order < 0, nil
	case "<=":
		return order <= 0, nil
	case ">":
		return order > 0, nil
	default:
		return order >= 0, nil
	}
}

func contained(a, b any) (any, error) {
	switch list := b.(type) {
	case []any:
		for _, item := range list {
			if reflect.DeepEqual(a, item) {
				return true, nil
			}
		}
		return false, nil
	case map[string]any:
		name, _ := a.(string)
		_, found := list[name]
		return found, nil
	}
	return nil, errors.New("in needs a list or an object")
}

func (p *parser) unary() (expression, error) {
	if p.take("!") == "" {
		return p.path()
	}
	if p.depth++; p.depth > maxDepth {
		return nil, errors.New("it is nested too deep")
	}
	defer func() { p.depth-- }()
	operand, err := p.unary()
	return func(event map[string]any) (any, error) {
		value, err := operand(event)
		is, ok := value.(bool)
		if err == nil && !ok {
			err = errors.New("! needs a condition")
		}
		return !is, err
	}, err
}

// path reads a value, and the members and calls that follow it.
func (p *parser) path() (expression, error) {
	e, err := p.primary()
	for err == nil {
		of := e
		switch p.take(".", "[") {
		case ".":
			name := p.peek()
			if !isName(name) {
				return nil, p.unexpected()
			}
			p.at += len(name)
			if p.take("(") != "" {
				e, err = p.method(name, of)
				continue
			}
			e = func(event map[string]any) (any, error) { return memberOf(of, name, event) }
		case "[":
			var index expression
			if index, err = p.either(); err == nil {
				err = p.want("]")
			}
			e = func(event map[string]any) (any, error) { return elementOf(of, index, event) }
		default:
			return e, nil
		}
	}
	return e, err
}

func isName(s string) bool {
	return s != "" && (s[0] == '_' || s[0] >= 'A' && s[0] <= 'Z' || s[0] >= 'a' && s[0] <= 'z')
}

func memberOf(of expression, name string, event map[string]any) (any, error) {
	value, err := of(event)
	if err != nil {
		return nil, err
	}
	object, _ := value.(map[string]any)
	member, found := object[name]
	if !found {
		return nil, errMissing
	}
	return member, nil
}

func elementOf(of, index expression, event map[string]any) (any, error) {
	at, err := index(event)
	if err != nil {
		return nil, err
	}
	if name, is := at.(string); is {
		return memberOf(of, name, event)
	}
	value, err := of(event)
	if err != nil {
		return nil, err
	}
	list, _ := value.([]any)
	n, is := at.(float64)
	if !is || !(n >= 0 && n < float64(len(list))) { // before it is made an int, which it may not fit
		return nil, errMissing
	}
	return list[int(n)], nil
}

func (p *parser) primary() (expression, error) {
	next := p.peek()
	switch {
	case next == "(":
		p.at++
		e, err := p.either()
		if err == nil {
			err = p.want(")")
		}
		return e, err
	case next == "[":
		p.at++
		return p.list()
	case next == "":
		return nil, errors.New("it ends too early")
	case next[0] == '"' || next[0] == '\'':
		if len(next) < 2 {
			return nil, errors.New("a string does not end")
		}
		p.at += len(next)
		text, err := unquote(next)
		return constant(text), err
	case next == "-" || next[0] >= '0' && next[0] <= '9':
		return p.number()
	case !isName(next):
		return nil, p.unexpected()
	}
	p.at += len(next)
	switch next {
	case "true", "false":
		return constant(next == "true"), nil
	case "null":
		return constant(nil), nil
	case "event":
		return func(event map[string]any) (any, error) { return event, nil }, nil
	case "has", "size":
		if p.take("(") != "" {
			return p.function(next)
		}
	}
	p.at -= len(next)
	return nil, p.unexpected()
}

func constant(value any) expression { return func(map[string]any) (any, error) { return value, nil } }

// unquote reads a string in either kind of quotation marks.
func unquote(s string) (string, error) {
	if s[0] == '\'' {
		s = `"` + strings.ReplaceAll(strings.ReplaceAll(s[1:len(s)-1], `\'`, `'`), `"`, `\"`) + `"`
	}
	text, err := strconv.Unquote(s)
	if err != nil {
		return "", fmt.Errorf("%s is no string", s)
	}
	return text, nil
}

func (p *parser) number() (expression, error) {
	sign := 1.0
	if p.take("-") != "" {
		sign = -1
	}
	text := p.peek()
	n, err := strconv.ParseFloat(text, 64)
	if err != nil {
		return nil, p.unexpected()
	}
	p.at += len(text)
	return constant(sign * n), nil
}

func (p *parser) list() (expression, error) {
	var items []expression
	for p.take("]") == "" {
		if len(items) > 0 {
			if err := p.want(","); err != nil {
				return nil, err
			}
		}
		item, err := p.either()
		if err != nil {
			return nil, err
		}
		items = append(items, item)
	}
	return func(event map[string]any) (any, error) {
		values := make([]any, len(items))
		for i, item := range items {
			var err error
			if values[i], err = item(event); err != nil {
				return nil, err
			}
		}
		return values, nil
	}, nil
}

// function reads the argument of has or size.
func (p *parser) function(name string) (expression, error) {
	of, err := p.either()
	if err == nil {
		err = p.want(")")
	}
	if name == "has" {
		return func(event map[string]any) (any, error) {
			_, err := of(event)
			if errors.Is(err, errMissing) {
				return false, nil
			}
			return true, err
		}, err
	}
	return func(event map[string]any) (any, error) { return size(of, event) }, err
}

func size(of expression, event map[string]any) (any, error) {
	value, err := of(event)
	switch v := value.(type) {
	case string:
		return float64(utf8.RuneCountInString(v)), err
	case []any:
		return float64(len(v)), err
	case map[string]any:
		return float64(len(v)), err
	}
	return nil, errors.Join(err, errors.New("size needs a string, a list or an object"))
}

// method reads the arguments of a call on a value.
func (p *parser) method(name string, of expression) (expression, error) {
	if name == "size" {
		return func(event map[string]any) (any, error) { return size(of, event) }, p.want(")")
	}
	test, known := map[string]func(s, with string) (bool, error){
		"startsWith": func(s, with string) (bool, error) { return strings.HasPrefix(s, with), nil },
		"endsWith":   func(s, with string) (bool, error) { return strings.HasSuffix(s, with), nil },
		"contains":   func(s, with string) (bool, error) { return strings.Contains(s, with), nil },
		"matches":    func(s, with string) (bool, error) { return regexp.MatchString(with, s) },
	}[name]
	if !known {
		return nil, fmt.Errorf("there is no function %q; there are startsWith, endsWith, contains, matches and size", name)
	}
	argument, err := p.either()
	if err == nil {
		err = p.want(")")
	}
	return func(event map[string]any) (any, error) {
		value, err := of(event)
		if err != nil {
			return nil, err
		}
		with, err := argument(event)
		if err != nil {
			return nil, err
		}
		s, isText := value.(string)
		w, areTexts := with.(string)
		if !isText || !areTexts {
			return nil, errors.New(name + " needs strings")
		}
		return test(s, w)
	}, err
}
