package statetest

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/bannou-mesh/bannou/pkg/state"
)

const (
	// checkPatience bounds the search for an order. It takes a second where nothing is unknown.
	checkPatience = time.Minute
	// clockSlack is how far an expiry may be off: what engines round, and how far their clock runs from ours.
	clockSlack = 5 * time.Millisecond
)

// check looks for an order of the calls of each key that explains them. Its error shows the calls that none explains.
func (h *history) check() error {
	return errors.Join(h.checkETags(), h.checkOrder())
}

// checkETags looks for an ETag that two saves of a key were given, or that two values were read with.
func (h *history) checkETags() error {
	type tag struct {
		key  int
		etag string
	}
	values := map[tag]int64{}
	for _, c := range h.calls {
		if c.newETag == "" {
			continue
		}
		value := c.value
		if c.asked == "get" {
			value = c.seen
		}
		at := tag{c.key, c.newETag}
		if other, ok := values[at]; ok && other != value {
			return fmt.Errorf("seed %d: key %d: the ETag %q is of the value %d and of %d", h.seed, c.key, c.newETag, other, value)
		}
		values[at] = value
	}
	return nil
}

func (h *history) checkOrder() error {
	var errs []error
	for key := range historyKeys {
		var operations []porcupine.Operation
		for _, c := range h.calls {
			if c.key == key {
				operations = append(operations, porcupine.Operation{ClientId: c.client, Input: c, Call: int64(c.begin), Return: int64(c.end)})
			}
		}
		result, info := porcupine.CheckOperationsVerbose(linear(h.expiryAtBegin), operations, checkPatience)
		switch result {
		case porcupine.Ok:
		case porcupine.Illegal:
			errs = append(errs, fmt.Errorf("seed %d: no order of the calls of key %d explains what they were told:\n%s", h.seed, key, unexplained(operations, info)))
		default:
			errs = append(errs, fmt.Errorf("seed %d: key %d: no order of %d calls was found in %s, and it is not certain that there is none", h.seed, key, len(operations), checkPatience))
		}
	}
	return errors.Join(errs...)
}

// unexplained shows the longest order that was found, its end, and the calls that could not follow.
func unexplained(operations []porcupine.Operation, info porcupine.LinearizationInfo) string {
	var longest []porcupine.Operation
	for _, order := range info.PartialLinearizationsOperations()[0] {
		if len(order) > len(longest) {
			longest = order
		}
	}
	explained := map[any]bool{}
	for _, o := range longest {
		explained[o.Input] = true
	}
	slices.SortFunc(operations, func(a, b porcupine.Operation) int { return cmp.Compare(a.Return, b.Return) })
	const most = 10
	var b strings.Builder
	for _, o := range longest[max(0, len(longest)-most):] {
		fmt.Fprintf(&b, "  explained:   %s\n", o.Input)
	}
	shown := 0
	for _, o := range operations {
		if !explained[o.Input] && shown < most {
			shown++
			fmt.Fprintf(&b, "  unexplained: %s\n", o.Input)
		}
	}
	return b.String()
}

// A cell is what a key holds.
type cell struct {
	present bool
	value   int64
	version int64
	etag    string // empty: of a save whose outcome is unknown, and not read since
	// It expires at some time between these two. Zero: never.
	from, until time.Duration
	gone        bool // somebody has seen that it has expired
}

// linear is the key as a state machine. A call may find an expired key present or absent while it is not certain which, so a step may lead
// to several states.
//
// A driver with Features.ExpiryAtBegin may have a change find a key that others have seen expire while it was under way.
func linear(expiryAtBegin bool) porcupine.Model {
	model := porcupine.NondeterministicModel{
		Init: func() []any { return []any{cell{}} },
		Step: func(from, asked, _ any) []any {
			var next []any
			before, c := from.(cell), asked.(*call)
			for _, seen := range before.at(c, expiryAtBegin) {
				after, ok := c.follow(seen)
				if before.present && !seen.present && !after.present {
					after, after.gone = before, true // it was seen to have expired, and nothing was put in its place
				}
				if ok {
					next = append(next, after)
				}
			}
			return next
		},
		Hash: func(s any) uint64 { c := s.(cell); return uint64(c.value)*31 + uint64(c.version) },
	}
	return model.ToModel()
}

// at is what the cell may be while the call is made.
func (c cell) at(a *call, expiryAtBegin bool) []cell {
	if !c.present || c.until == 0 {
		return []cell{c}
	}
	var may []cell
	if a.begin <= c.until && (!c.gone || expiryAtBegin && !a.reads()) {
		may = append(may, c)
	}
	if a.end >= c.from {
		may = append(may, cell{})
	}
	return may
}

// follow is what the cell is after the call. False: the call was told something else than this cell would tell.
func (c *call) follow(before cell) (cell, bool) {
	if c.reads() {
		return c.afterRead(before)
	}
	holds := true
	if c.conditional() {
		holds = before.present == (c.etag != "") && before.etag == c.etag
	}
	switch {
	case c.unknown && !holds:
		return before, true
	case c.conflict:
		return before, !holds
	case c.asked == "try-delete" && !c.unknown && !c.found:
		return before, !before.present
	case !holds:
		return before, false
	case c.deletes():
		return cell{}, c.unknown || c.found == before.present
	}
	after := cell{present: true, value: c.value, version: before.version + 1, etag: c.newETag}
	if !c.unknown && c.version != after.version {
		return before, false
	}
	if ttl, ok := c.ttl.TTL(); ok {
		after.from, after.until = c.begin+ttl-clockSlack, math.MaxInt64
		if !c.unknown {
			after.until = c.end + ttl + clockSlack + c.rounds
		}
	} else if c.ttl == state.Keep {
		after.from, after.until = before.from, before.until
	}
	return after, true
}

func (c *call) afterRead(before cell) (cell, bool) {
	if c.found != before.present || c.asked == "exists" || !c.found {
		return before, c.found == before.present
	}
	if before.etag == "" {
		before.etag = c.newETag
	}
	same := c.seen == before.value && c.version == before.version && c.newETag == before.etag
	return before, same && c.expiresAsAsked(before)
}

// expiresAsAsked reports whether a read says of the expiry what the saves before it asked for. It is exact about whether there is one, and
// leaves room for a server whose clock is not ours.
func (c *call) expiresAsAsked(before cell) bool {
	const room = 10 * time.Second
	if before.until == 0 || c.expires == 0 {
		return before.until == 0 && c.expires == 0
	}
	return c.expires > before.from-room && (before.until == math.MaxInt64 || c.expires < before.until+room)
}
