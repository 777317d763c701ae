package connect

import (
	"strconv"
	"strings"
)

// queueName is of the queue in which the events of a session wait: "session.{id}", and "session.{id}.{anew}" once it has begun anew. A queue
// that was given up is never used again, so what the broker tells of it late, or twice, is of nothing that anybody reads.
func queueName(sessionID string, anew int64) string {
	name := "session." + sessionID
	if anew > 0 {
		name += "." + strconv.FormatInt(anew, 10)
	}
	return name
}

// parseQueueName is the way back; false: the queue is of no session.
func parseQueueName(name string) (sessionID string, anew int64, ok bool) {
	rest, is := strings.CutPrefix(name, "session.")
	if !is {
		return "", 0, false
	}
	sessionID, times, more := strings.Cut(rest, ".")
	if more {
		n, err := strconv.ParseInt(times, 10, 64)
		if err != nil || n < 1 {
			return "", 0, false
		}
		anew = n
	}
	return sessionID, anew, sessionID != ""
}
