package schema

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// A Pos is a line of a schema file.
type Pos struct {
	File string // as messages show it: "schemas/mesh.yaml"
	Line int    // from 1
}

func (p Pos) String() string { return fmt.Sprintf("%s:%d", p.File, p.Line) }

// An Error is one mistake in a schema.
type Error struct {
	Pos     Pos
	Message string
}

func (e Error) Error() string { return e.Pos.String() + ": " + e.Message }

// Errors are all mistakes found, in the order of files and lines.
type Errors []Error

func (e Errors) Error() string {
	lines := make([]string, len(e))
	for i := range e {
		lines[i] = e[i].Error()
	}
	return strings.Join(lines, "\n")
}

// Add appends a mistake.
func (e *Errors) Add(at Pos, format string, args ...any) {
	*e = append(*e, Error{at, fmt.Sprintf(format, args...)})
}

// Err returns the mistakes, sorted and each once, or nil if there are none.
func (e Errors) Err() error {
	if len(e) == 0 {
		return nil
	}
	sorted := slices.Clone(e)
	slices.SortStableFunc(sorted, func(a, b Error) int {
		return cmp.Or(cmp.Compare(a.Pos.File, b.Pos.File), cmp.Compare(a.Pos.Line, b.Pos.Line))
	})
	return slices.Compact(sorted)
}
