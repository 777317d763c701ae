package eventstore

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/bannou-mesh/bannou/pkg/state"
)

// A Change is a place in which two values differ.
type Change struct {
	Path   jsontext.Pointer // empty: the whole
	Before jsontext.Value   // nil: it was not there
	After  jsontext.Value   // nil: it is there no longer
}

// Compare tells where two JSON values differ: members of objects by their names, in their order, elements of arrays by their index. Numbers are the
// same when they are written the same, and texts when they say the same.
func Compare(before, after jsontext.Value) ([]Change, error) {
	c := comparison{}
	before, after = slices.Clone(before), slices.Clone(after)
	err := errors.Join(compact(&before), compact(&after))
	if err == nil {
		err = c.values("", before, after)
	}
	if err != nil {
		return nil, fmt.Errorf("eventstore: %w: what is compared is not JSON: %w", state.ErrInvalid, err)
	}
	return c.changes, nil
}

func compact(v *jsontext.Value) error {
	if *v == nil {
		return nil
	}
	return v.Compact()
}

type comparison struct{ changes []Change }

func (c *comparison) values(at jsontext.Pointer, before, after jsontext.Value) error {
	switch {
	case before == nil && after == nil:
		return nil
	case before == nil || after == nil || before.Kind() != after.Kind():
		c.add(at, before, after)
		return nil
	case before.Kind() == '{':
		return c.objects(at, before, after)
	case before.Kind() == '[':
		return c.arrays(at, before, after)
	case before.Kind() == '"':
		was, err := jsontext.AppendUnquote(nil, before)
		if err != nil {
			return err
		}
		is, err := jsontext.AppendUnquote(nil, after)
		if err != nil {
			return err
		}
		if !bytes.Equal(was, is) {
			c.add(at, before, after)
		}
	case !bytes.Equal(before, after):
		c.add(at, before, after)
	}
	return nil
}

func (c *comparison) objects(at jsontext.Pointer, before, after jsontext.Value) error {
	var was, is map[string]jsontext.Value
	if err := json.Unmarshal(before, &was); err != nil {
		return err
	}
	if err := json.Unmarshal(after, &is); err != nil {
		return err
	}
	names := maps.Clone(was)
	maps.Copy(names, is)
	for _, name := range slices.Sorted(maps.Keys(names)) {
		if err := c.values(at.AppendToken(name), was[name], is[name]); err != nil {
			return err
		}
	}
	return nil
}

func (c *comparison) arrays(at jsontext.Pointer, before, after jsontext.Value) error {
	var was, is []jsontext.Value
	if err := json.Unmarshal(before, &was); err != nil {
		return err
	}
	if err := json.Unmarshal(after, &is); err != nil {
		return err
	}
	element := func(list []jsontext.Value, i int) jsontext.Value {
		if i < len(list) {
			return list[i]
		}
		return nil
	}
	for i := range max(len(was), len(is)) {
		if err := c.values(at.AppendToken(strconv.Itoa(i)), element(was, i), element(is, i)); err != nil {
			return err
		}
	}
	return nil
}

func (c *comparison) add(at jsontext.Pointer, before, after jsontext.Value) {
	c.changes = append(c.changes, Change{Path: at, Before: slices.Clone(before), After: slices.Clone(after)})
}
