package state

import "fmt"

// A Query asks for the values that match Filter, in the order of Sort.
type Query struct {
	Filter Filter
	Sort   []Sort // the first decides, the next breaks its ties; ties that remain are in key order
	Limit  int    // at most so many; 0: all
	Offset int    // leave out so many at the beginning

	// Fields are the dotted paths of the members to keep of each value; none: the whole value. What is kept stands as it
	// was written. A path goes into the elements of an array that are objects, and leaves out the others; what a value
	// does not have is left out, so that one without any of the members is {}.
	Fields []string

	// After is where to go on, from PositionOf; nil: from the beginning. QueryAfter and All see to it themselves.
	After *Position
}

// A Sort is one member to order by.
//
// Values of different types are in MongoDB's order: missing and null alike first, then numbers, strings (by code
// point), objects, arrays, booleans. Objects are ties of each other, and so are arrays: a path does not enter arrays. MySQL
// and MariaDB order strings by their first 1000 bytes; longer ones that begin alike are ties there.
type Sort struct {
	Field      string // a dotted path
	Descending bool
}

// Bounds of a query beside its filter's.
const (
	MaxSorts  = 8   // members that one query is ordered by
	MaxFields = 100 // members that one query keeps of each value
)

// Validate checks what does not depend on an engine; every error is a *FilterError.
func (q Query) Validate() error {
	if err := q.Filter.Err(); err != nil {
		return err
	}
	if q.Limit < 0 {
		return &FilterError{Reason: "the limit is negative; 0 means all"}
	}
	if q.Offset < 0 {
		return &FilterError{Reason: "the offset is negative"}
	}
	if len(q.Sort) > MaxSorts {
		return &FilterError{Reason: fmt.Sprintf("a query is sorted by at most %d members", MaxSorts)}
	}
	for _, s := range q.Sort {
		if s.Field == "" {
			return &FilterError{Reason: "a sort needs the member to sort by"}
		}
		if _, err := ParsePath(s.Field); err != nil {
			return err
		}
	}
	if _, err := newProjection(q.Fields); err != nil {
		return err
	}
	if q.After != nil {
		return q.After.check(q.Sort)
	}
	return nil
}
