package jsonbody

import (
	"net/http"
	"sync"
	"time"
)

// A limit ends the reading of a body that takes too long. Nearly every body is there when it is asked for: a timer that is
// stopped again costs much less than to set the connection's deadline and take it back.
type limit struct {
	timer *time.Timer
	conn  *http.ResponseController

	mu    sync.Mutex
	ended bool
}

// begin limits what is read from now on. A request that did not come by a socket has no deadline to set, and needs none.
func begin(w http.ResponseWriter, d time.Duration) *limit {
	l := &limit{conn: http.NewResponseController(w)}
	l.timer = time.AfterFunc(d, l.over)
	return l
}

// over makes the read under way fail.
func (l *limit) over() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.ended {
		_ = l.conn.SetReadDeadline(time.Unix(1, 0)) // not supported: see begin
	}
}

// end lets the connection be read again, unless reading failed: net/http reads what is left of a body before it answers,
// and would wait for it.
func (l *limit) end(failed bool) {
	l.mu.Lock()
	l.ended = true
	l.mu.Unlock()
	if !l.timer.Stop() && !failed { // over may have set the deadline
		_ = l.conn.SetReadDeadline(time.Time{})
	}
}
