package migrate

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"

	"github.com/bannou-mesh/bannou/pkg/state"
)

// walkKeys is how many notes are looked for at a time. Redis looks at that many keys of its database to find them, while writes may wait.
const walkKeys = 10_000

// An intent is a note of keys that somebody is about to change, on the side that decides. It is there before the change and until the
// keys were carried to the other side.
type intent struct {
	name string
	keys []string
}

// declare writes an intent down.
func (s *side) declare(ctx context.Context, keys []string) (intent, error) {
	in := intent{name: s.key("intent." + rand.Text()), keys: keys}
	if _, err := s.lists.TrySaveWith(ctx, in.name, keys, "", state.SaveOptions{Expiry: state.Never}); err != nil {
		if ctx.Err() != nil {
			return in, fmt.Errorf("%w: %w", state.ErrUnavailable, context.Cause(ctx))
		}
		return in, fmt.Errorf("%w: what is to be changed could not be noted for the migration: %v", state.ErrUnavailable, err) //nolint:errorlint // nothing was changed, whatever became of the note
	}
	return in, nil
}

// withdraw takes intents away.
func (s *side) withdraw(ctx context.Context, names []string) error {
	for len(names) > 0 {
		n := min(len(names), state.MaxBulkKeys)
		results, err := s.lists.DeleteBulk(ctx, names[:n])
		if err != nil {
			return err
		}
		for _, r := range results {
			if r.Err != nil {
				return r.Err
			}
		}
		names = names[n:]
	}
	return nil
}

// intents walks over those that are there, a page at a time.
func (s *side) intents(ctx context.Context, page func([]intent) error) error {
	prefix := s.key("intent.")
	for cursor := ""; ; {
		keys, next, err := s.walk.Scan(ctx, cursor, walkKeys)
		if errors.Is(err, state.ErrCursor) {
			cursor = ""
			continue
		}
		if err != nil {
			return err
		}
		names := keys[:0:0]
		for _, key := range keys {
			if strings.HasPrefix(key, prefix) {
				names = append(names, key)
			}
		}
		var found []intent
		for len(names) > 0 {
			n := min(len(names), state.MaxBulkKeys)
			entries, err := s.lists.GetBulk(ctx, names[:n])
			if err != nil {
				return err
			}
			for _, e := range entries {
				if e.Found {
					found = append(found, intent{e.Key, e.Value})
				}
			}
			names = names[n:]
		}
		if len(found) > 0 {
			if err := page(found); err != nil {
				return err
			}
		}
		if cursor = next; cursor == "" {
			return nil
		}
	}
}

// keysOf are the keys of intents, each once.
func keysOf(intents []intent) []string {
	once := map[string]bool{}
	var keys []string
	for _, in := range intents {
		for _, key := range in.keys {
			if !once[key] {
				once[key] = true
				keys = append(keys, key)
			}
		}
	}
	return keys
}
