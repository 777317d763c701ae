package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/bannou-mesh/bannou/pkg/mesh"
)

// watchTimeout bounds one look: a node that hangs is shown as one that does not answer.
const watchTimeout = 5 * time.Second

// A watcher looks at the endpoints again and again.
type watcher struct {
	every time.Duration
	fetch func(ctx context.Context) ([]mesh.Endpoint, error)
}

// A display shows what a watcher sees. An error is one of writing.
type display interface {
	// show shows the endpoints as of now, or why they are not known now.
	show(now time.Time, endpoints []mesh.Endpoint, failure error) error
	// end leaves what is to stay.
	end() error
}

// run watches until the context ends, which is no error. A node that does not answer at first is one; later it may come back.
func (w *watcher) run(ctx context.Context, d display) error {
	for seen := false; ; seen = true {
		look, cancel := context.WithTimeout(ctx, watchTimeout)
		endpoints, err := w.fetch(look)
		cancel()
		switch {
		case ctx.Err() != nil:
			return d.end()
		case err != nil && !seen:
			return err
		}
		if err := d.show(time.Now(), endpoints, err); err != nil {
			return err
		}
		timer := time.NewTimer(w.every)
		select {
		case <-ctx.Done():
			timer.Stop()
			return d.end()
		case <-timer.C:
		}
	}
}

// A liveTable is a table that is drawn anew in its place, on a screen of its own. At the end the last one stays.
type liveTable struct {
	w         io.Writer
	node      string
	height    func() int // of the screen, in lines; 0: not known
	drawn     bool
	endpoints []mesh.Endpoint
	at        time.Time // when they were seen
}

// What a terminal does when it is sent these (ECMA-48, and xterm's for the second screen and the wrapping of lines).
const (
	secondScreen = "\x1b[?1049h\x1b[?7l" // long lines are cut there
	firstScreen  = "\x1b[?7h\x1b[?1049l"
	toHome       = "\x1b[H"
	clearRest    = "\x1b[K" // of the line
	clearBelow   = "\x1b[J"
)

func newLiveTable(w io.Writer, node string) *liveTable {
	return &liveTable{w: w, node: node, height: func() int {
		if file, ok := w.(*os.File); ok {
			return screenHeight(file)
		}
		return 0
	}}
}

func (l *liveTable) show(now time.Time, endpoints []mesh.Endpoint, failure error) error {
	if failure == nil {
		l.endpoints, l.at = endpoints, now
	}
	var screen bytes.Buffer
	if !l.drawn {
		screen.WriteString(secondScreen)
		l.drawn = true
	}
	screen.WriteString(toHome)
	head := fmt.Sprintf("%s  %s  %d endpoints", printable(l.node), now.Format(time.TimeOnly), len(l.endpoints))
	if failure != nil {
		head = fmt.Sprintf("%s  last seen at %s: %s", printable(l.node), l.at.Format(time.TimeOnly), printable(failure.Error()))
	}
	text, err := l.text(now)
	if err != nil {
		return err
	}
	lines := append([][]byte{[]byte(head), nil}, bytes.Split(bytes.TrimSuffix(text, []byte("\n")), []byte("\n"))...)
	if height := l.height(); height > 3 && len(lines) > height-1 {
		left := len(lines) - (height - 2)
		lines = append(lines[:height-2:height-2], fmt.Appendf(nil, "and %d more: name an app-id to see fewer", left))
	}
	for _, line := range lines {
		screen.Write(line)
		screen.WriteString(clearRest + "\n")
	}
	screen.WriteString(clearBelow)
	_, err = l.w.Write(screen.Bytes())
	return err
}

func (l *liveTable) text(now time.Time) ([]byte, error) {
	var t table
	t.endpoints(l.endpoints, now)
	var text bytes.Buffer
	err := t.write(&text)
	return text.Bytes(), err
}

func (l *liveTable) end() error {
	if !l.drawn {
		return nil
	}
	text, err := l.text(time.Now())
	if err == nil {
		_, err = l.w.Write(append([]byte(firstScreen), text...))
	}
	return err
}

// A changeLog prints a line for each change: who is there at first, who joins, leaves, or has another status, address or
// list of services. Loads and heartbeats are no changes.
type changeLog struct {
	std     *stdio
	json    bool
	begun   bool
	known   map[[2]string]mesh.Endpoint
	failing bool
}

func newChangeLog(std *stdio, asJSON bool) *changeLog {
	return &changeLog{std: std, json: asJSON, known: map[[2]string]mesh.Endpoint{}}
}

// A change is a line of a changeLog.
type change struct {
	At       time.Time     `json:"at"`
	Change   string        `json:"change"` // present, joined, changed, left
	Was      mesh.Status   `json:"was,omitempty"`
	Endpoint mesh.Endpoint `json:"endpoint"`
}

func (l *changeLog) show(now time.Time, endpoints []mesh.Endpoint, failure error) error {
	if failure != nil {
		if !l.failing {
			_, _ = fmt.Fprintf(l.std.err, "bannou: %s; still watching\n", failure) // there is no other place to say it
		}
		l.failing = true
		return nil
	}
	if l.failing {
		_, _ = fmt.Fprintln(l.std.err, "bannou: the node answers again")
		l.failing = false
	}
	for _, c := range l.changes(now, endpoints) {
		if err := l.print(c); err != nil {
			return err
		}
	}
	return nil
}

// changes compares with what was seen before.
func (l *changeLog) changes(now time.Time, endpoints []mesh.Endpoint) []change {
	var all []change
	next := make(map[[2]string]mesh.Endpoint, len(endpoints))
	for _, e := range endpoints {
		id := [2]string{e.AppID, e.InstanceID}
		next[id] = e
		before, known := l.known[id]
		switch {
		case !known && !l.begun:
			all = append(all, change{At: now, Change: "present", Endpoint: e})
		case !known:
			all = append(all, change{At: now, Change: "joined", Endpoint: e})
		case before.Status != e.Status:
			all = append(all, change{At: now, Change: "changed", Was: before.Status, Endpoint: e})
		case address(&before) != address(&e) || fmt.Sprint(before.Services) != fmt.Sprint(e.Services):
			all = append(all, change{At: now, Change: "changed", Endpoint: e})
		}
	}
	for _, id := range sortedIDs(l.known) {
		if _, there := next[id]; !there {
			all = append(all, change{At: now, Change: "left", Endpoint: l.known[id]})
		}
	}
	l.known, l.begun = next, true
	return all
}

func (l *changeLog) print(c change) error {
	if l.json {
		line := json.NewEncoder(l.std.out)
		line.SetEscapeHTML(false)
		return line.Encode(c)
	}
	e := &c.Endpoint
	text := fmt.Sprintf("%s %-7s %s %s %s %s", c.At.Format(time.TimeOnly), c.Change, e.AppID, e.InstanceID, address(e), e.Status)
	if c.Was != "" {
		text += fmt.Sprintf(" (was %s)", c.Was)
	}
	_, err := fmt.Fprintln(l.std.out, printable(text))
	return err
}

func (l *changeLog) end() error { return nil }
