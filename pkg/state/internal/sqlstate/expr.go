package sqlstate

import "strings"

// An Expr is a piece of SQL with the values bound in it, in the order of their placeholders.
type Expr struct {
	Text string
	Args []any
}

// SQL composes an expression from a pattern in which each @ stands for the next part. The pattern is always a constant
// of the program: what comes from outside goes through Bind, and table names through CheckTable.
func SQL(pattern string, parts ...Expr) Expr {
	if len(parts) == 0 {
		return Expr{Text: pattern}
	}
	var e Expr
	var b strings.Builder
	length, args := len(pattern), 0
	for _, part := range parts {
		length, args = length+len(part.Text), args+len(part.Args)
	}
	b.Grow(length)
	if args > 0 {
		e.Args = make([]any, 0, args)
	}
	for _, part := range parts {
		at := strings.IndexByte(pattern, '@')
		b.WriteString(pattern[:at])
		b.WriteString(part.Text)
		e.Args = append(e.Args, part.Args...)
		pattern = pattern[at+1:]
	}
	b.WriteString(pattern)
	e.Text = b.String()
	return e
}

// Bind is a placeholder for a value.
func Bind(v any) Expr { return Expr{Text: "?", Args: []any{v}} }

// Join puts separator between the parts.
func Join(parts []Expr, separator string) Expr {
	var e Expr
	texts := make([]string, len(parts))
	for i, part := range parts {
		texts[i] = part.Text
		e.Args = append(e.Args, part.Args...)
	}
	e.Text = strings.Join(texts, separator)
	return e
}

// Binds is one placeholder for each value, with commas between.
func Binds[T any](values []T) Expr {
	args := make([]any, len(values))
	for i, v := range values {
		args[i] = v
	}
	return Expr{Text: strings.TrimSuffix(strings.Repeat("?,", len(values)), ","), Args: args}
}
