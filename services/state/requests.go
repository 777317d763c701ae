package state

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/services/guard"
	"github.com/bannou-mesh/bannou/services/problem"
	"github.com/bannou-mesh/bannou/services/state/stateapi"
)

// store opens the named store for raw JSON, for a caller who has the right.
func (s *Service) store(ctx context.Context, name string, r guard.Right) (*state.Store[json.RawMessage], error) {
	if err := s.checkStore(ctx, name, r); err != nil {
		return nil, err
	}
	return state.Open[json.RawMessage](ctx, s.cfg.Factory, name)
}

func (s *Service) checkStore(ctx context.Context, name string, r guard.Right) error {
	if name == "" {
		return problem.Missing("storeName")
	}
	if s.internal[name] || !s.cfg.Factory.Has(name) {
		return problem.New(problem.UnknownStore, "member storeName: there is no store %.64q; /state/list-stores lists those there are",
			name).At("storeName")
	}
	return s.checkAccess(ctx, name, r)
}

// reading gives the view of a store that the options of a read ask for.
func reading(store *state.Store[json.RawMessage], o stateapi.ReadOptions) (*state.Store[json.RawMessage], error) {
	if err := checkConsistency(o.Consistency); err != nil {
		return nil, err
	}
	if o.Consistency == stateapi.Eventual {
		return store.Eventual(), nil
	}
	return store, nil
}

func checkConsistency(c stateapi.Consistency) error {
	if c != "" && !c.Valid() {
		return problem.Invalid("options.consistency", "is %.64q, and has to be strong or eventual", string(c))
	}
	return nil
}

// checkKey accepts what every engine takes as a key.
func checkKey(member, key string) error {
	switch {
	case key == "":
		return problem.Missing(member)
	case len(key) > state.MaxKeyBytes:
		return problem.New(problem.KeyTooLong, "member %s has %d bytes, at most %d are allowed", member, len(key),
			state.MaxKeyBytes).At(member)
	case strings.IndexByte(key, 0) >= 0:
		return problem.Invalid(member, "contains a NUL")
	default:
		return nil
	}
}

// checkKeys accepts a list of them, each once if they are to be changed.
func checkKeys(member string, keys []string, distinct bool) error {
	if keys == nil {
		return problem.Missing(member)
	}
	if err := checkCount(member, len(keys)); err != nil {
		return err
	}
	seen := make(map[string]struct{}, len(keys))
	for i, key := range keys {
		place := fmt.Sprintf("%s[%d]", member, i)
		if err := checkKey(place, key); err != nil {
			return err
		}
		if _, twice := seen[key]; twice && distinct {
			return problem.Invalid(place, "is a key that was named before")
		}
		seen[key] = struct{}{}
	}
	return nil
}

func checkCount(member string, n int) error {
	if n > state.MaxBulkKeys {
		return problem.Invalid(member, "has %d entries, at most %d are allowed", n, state.MaxBulkKeys)
	}
	return nil
}

// maxAnswerBytes is how many bytes of values one answer has at most.
const maxAnswerBytes = 64 << 20

// checkAnswer refuses to answer with more. The member is the one that says how many values are asked for.
func checkAnswer(member string, size int) error {
	if size > maxAnswerBytes {
		return problem.Invalid(member, "asks for values of %d bytes, and at most %d are answered at once; ask for fewer", size, maxAnswerBytes)
	}
	return nil
}

// checkValue accepts any JSON within the limit; null is a value.
func checkValue(member string, value json.RawMessage) error {
	switch {
	case len(value) == 0:
		return problem.New(problem.MissingMember, "member %s is required and is missing", member).At(member)
	case len(value) > state.MaxValueBytes:
		return problem.New(problem.ValueTooLarge, "member %s has %d bytes, at most %d are kept under one key", member,
			len(value), state.MaxValueBytes).At(member)
	default:
		return nil
	}
}

// maxTTL is far beyond what anyone means, and within what engines can write down.
const maxTTL = 100 * 365 * 24 * 60 * 60

// expiry is what a ttl asks for.
func expiry(member string, ttl *int64) (state.Expiry, error) {
	switch {
	case ttl == nil:
		return state.Expiry(0), nil
	case *ttl == -1:
		return state.Never, nil
	case *ttl < 1 || *ttl > maxTTL:
		return 0, problem.Invalid(member, "is %d, and has to be 1 to %d seconds, or -1 for never", *ttl, int64(maxTTL))
	default:
		return state.After(time.Duration(*ttl) * time.Second), nil
	}
}

// checkPage accepts a page that can be counted to.
func checkPage(page int, pageSize *int) (size int, err error) {
	size = 100
	if pageSize != nil {
		size = *pageSize
	}
	switch {
	case page < 0 || page > math.MaxInt32/state.MaxPageSize:
		return 0, problem.Invalid("page", "is %d, and has to be 0 to %d", page, math.MaxInt32/state.MaxPageSize)
	case size < 1 || size > state.MaxPageSize:
		return 0, problem.Invalid("pageSize", "is %d, and has to be 1 to %d", size, state.MaxPageSize)
	default:
		return size, nil
	}
}

// sorts reads the order that is asked for.
func sorts(in []sortField) ([]state.Sort, error) {
	if len(in) > state.MaxSorts {
		return nil, problem.Invalid("sort", "has %d entries, at most %d are allowed", len(in), state.MaxSorts)
	}
	out := make([]state.Sort, len(in))
	for i, s := range in {
		place := fmt.Sprintf("sort[%d].field", i)
		if s.Field == "" {
			return nil, problem.Missing(place)
		}
		if _, err := state.ParsePath(s.Field); err != nil {
			return nil, problem.Invalid(place, "is no path: %s", pathReason(err)).Because(err)
		}
		if s.Order != "" && !s.Order.Valid() {
			return nil, problem.Invalid(fmt.Sprintf("sort[%d].order", i), "is %.64q, and has to be asc or desc", string(s.Order))
		}
		out[i] = state.Sort{Field: s.Field, Descending: s.Order == descending}
	}
	return out, nil
}

// checkFields accepts the paths of members to keep.
func checkFields(fields []string) error {
	if len(fields) > state.MaxFields {
		return problem.Invalid("fields", "has %d entries, at most %d are allowed", len(fields), state.MaxFields)
	}
	for i, field := range fields {
		if _, err := state.ParsePath(field); err != nil {
			return problem.Invalid(fmt.Sprintf("fields[%d]", i), "is no path: %s", pathReason(err)).Because(err)
		}
	}
	return nil
}

func pathReason(err error) string {
	if wrong, ok := errors.AsType[*state.FilterError](err); ok {
		return wrong.Reason
	}
	return err.Error()
}
