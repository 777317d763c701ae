package guard

import (
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// lookEvery is how often files are looked at that are in use.
const lookEvery = time.Second

// A watched value is made of files, and made anew when one of them has changed: looked for by who uses it, at most once in
// lookEvery. Files that cannot be used leave the value as it is, and are tried again.
type watched[T any] struct {
	what  string
	files []string
	load  func() (T, error)
	log   *slog.Logger
	begin time.Time

	current atomic.Pointer[T]
	next    atomic.Int64 // when files are looked at again, since begin

	mu      sync.Mutex
	stamp   string // of the files that current was made of
	refused string // of those that could not be used
}

// watch makes a value that follows its files.
func watch[T any](what string, files []string, load func() (T, error), log *slog.Logger) (*watched[T], error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	w := &watched[T]{what: what, files: slices.Sorted(slices.Values(files)), load: load, log: log, begin: time.Now()}
	w.stamp = w.look()
	value, err := load()
	if err != nil {
		return nil, err
	}
	w.current.Store(&value)
	w.next.Store(int64(lookEvery))
	return w, nil
}

// unchanging is a value without files.
func unchanging[T any](value T) *watched[T] {
	w := new(watched[T])
	w.current.Store(&value)
	return w
}

func (w *watched[T]) get() T {
	if len(w.files) > 0 {
		now := int64(time.Since(w.begin))
		if next := w.next.Load(); now >= next && w.next.CompareAndSwap(next, now+int64(lookEvery)) {
			w.refresh()
		}
	}
	return *w.current.Load()
}

func (w *watched[T]) refresh() {
	w.mu.Lock()
	defer w.mu.Unlock()
	stamp := w.look() // before they are read: a change meanwhile is seen the next time
	if stamp == w.stamp {
		w.refused = ""
		return
	}
	value, err := w.load()
	switch {
	case err == nil:
		w.current.Store(&value)
		w.stamp, w.refused = stamp, ""
		w.log.Info(w.what + " were read again")
	case w.refused != stamp:
		w.refused = stamp
		w.log.Warn(w.what+" have changed and cannot be used; what was read before holds", "error", err)
	}
}

// look tells by size and time whether files have changed.
func (w *watched[T]) look() string {
	var stamp strings.Builder
	for _, name := range w.files {
		if info, err := os.Stat(name); err != nil {
			fmt.Fprintf(&stamp, "%s away;", name)
		} else {
			fmt.Fprintf(&stamp, "%s %d %d;", name, info.Size(), info.ModTime().UnixNano())
		}
	}
	return stamp.String()
}
