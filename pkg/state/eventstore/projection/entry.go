package projection

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore"
)

// An entry is what all processes know of a projection.
type entry struct {
	Live     int       `json:"live"` // the number of the version that readers are given
	Paused   bool      `json:"paused,omitzero"`
	Newest   shape     `json:"newest"` // of the highest revision that was ever defined
	Last     int       `json:"last"`   // the highest number that was given to a version
	Versions []version `json:"versions"`
}

// A shape is what there is to know of a definition without having it.
type shape struct {
	Revision  int      `json:"revision"`
	Category  string   `json:"category,omitzero"`
	Inline    bool     `json:"inline,omitzero"`
	Tables    []string `json:"tables,omitzero"`
	Elsewhere bool     `json:"elsewhere,omitzero"` // only who has the definition can drop it
}

type version struct {
	Number   int       `json:"number"`
	Shape    shape     `json:"shape"`
	Phase    State     `json:"phase"`             // any but Paused
	Hold     bool      `json:"hold,omitzero"`     // it is not swapped by itself
	Attached bool      `json:"attached,omitzero"` // it is changed in each append, and nobody has a lease of it
	Begun    time.Time `json:"begun"`
	Head     int64     `json:"head,omitzero"`   // the last position that there was for it then
	Erased   int64     `json:"erased,omitzero"` // how many subjects of the log had been erased by then
}

func shapeOf(d *Definition) shape {
	s := shape{Revision: d.Revision, Category: d.Category, Inline: d.Inline, Elsewhere: d.Into != nil}
	for _, t := range d.Tables {
		s.Tables = append(s.Tables, t.Name)
	}
	return s
}

func decode(data []byte) (*entry, error) {
	e := &entry{}
	if len(data) == 0 {
		return e, nil
	}
	if err := json.Unmarshal(data, e); err != nil {
		return nil, fmt.Errorf("%w: the entry of a projection: %w", state.ErrCorrupt, err)
	}
	return e, nil
}

// find returns a version, or nil.
func (e *entry) find(number int) *version {
	for i := range e.Versions {
		if e.Versions[i].Number == number {
			return &e.Versions[i]
		}
	}
	return nil
}

// follows reports whether a version is to be followed, by its lease or in each append.
func (e *entry) follows(number int, attached bool) bool {
	v := e.find(number)
	return v != nil && !e.Paused && v.Phase != Dropping && v.Attached == attached
}

// begin adds a version.
func (e *entry) begin(phase State, hold bool, erased int64) *version {
	e.Last++
	e.Versions = append(e.Versions, version{Number: e.Last, Shape: e.Newest, Phase: phase, Hold: hold, Begun: time.Now().UTC(), Erased: erased})
	return &e.Versions[len(e.Versions)-1]
}

// remove forgets a version.
func (e *entry) remove(number int) {
	e.Versions = slices.DeleteFunc(e.Versions, func(v version) bool { return v.Number == number })
}

// errUnchanged ends a change that finds nothing to do.
var errUnchanged = errors.New("nothing is to be changed")

// change changes the entry of a projection, in one step for all processes. fn may be called again.
func change(ctx context.Context, engine eventstore.Engine, name string, fn func(w eventstore.Within, e *entry) error) error {
	err := engine.ChangeProjection(ctx, name, func(w eventstore.Within, current []byte) ([]byte, error) {
		e, err := decode(current)
		if err == nil {
			err = fn(w, e)
		}
		if err != nil {
			return nil, err
		}
		return json.Marshal(e)
	})
	if errors.Is(err, errUnchanged) {
		return nil
	}
	return err
}

// read returns the entry of a projection. state.ErrNotFound: there is none.
func read(ctx context.Context, engine eventstore.Engine, name string) (*entry, error) {
	entries, err := engine.Projections(ctx, name)
	if err != nil {
		return nil, err
	}
	data, found := entries[name]
	if !found || name == "" {
		return nil, errNone
	}
	return decode(data)
}

var errNone = fmt.Errorf("%w: no process has defined a projection of that name", state.ErrNotFound)
