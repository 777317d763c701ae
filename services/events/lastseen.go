package events

import (
	"context"
	"math"
	"strconv"
	"strings"

	"github.com/bannou-mesh/bannou/pkg/state/eventstore"
	"github.com/bannou-mesh/bannou/services/events/eventsapi"
	"github.com/bannou-mesh/bannou/services/problem"
)

// A lastSeen is the last event that a reader has. A reader has it as the id of a server-sent event: "42/0190b3a4-…".
type lastSeen struct {
	at int64  // its position, of a stream's its version
	id string // empty: the reader says the number alone
}

func seen(e *eventstore.Recorded, byVersion bool) lastSeen {
	if byVersion {
		return lastSeen{e.Version, e.ID}
	}
	return lastSeen{e.Position, e.ID}
}

func (l lastSeen) String() string {
	if l.id == "" {
		return strconv.FormatInt(l.at, 10)
	}
	return strconv.FormatInt(l.at, 10) + "/" + l.id
}

func parseLastSeen(header string) (lastSeen, error) {
	number, id, _ := strings.Cut(strings.TrimSpace(header), "/")
	at, err := strconv.ParseInt(number, 10, 64)
	if err != nil || at < 0 || at == math.MaxInt64 {
		return lastSeen{}, problem.New(problem.InvalidMember, "the header Last-Event-ID is %.64q, and has to be the id of an event of this stream: a number, and behind a slash the event's id", header)
	}
	return lastSeen{at, id}, nil
}

// stillThere refuses a reader that has an event which the log has not. A database that was set back, by a kill before it was on disk or a failover to a
// replica that lagged, gives the place to another event, and the reader would pass over that. Of a number alone only what is beyond the end is seen.
func (s *Service) stillThere(ctx context.Context, r *eventsapi.SubscribeEventsRequest, last lastSeen) error {
	if last.at == 0 && last.id == "" {
		return nil
	}
	if last.id == "" && r.ID == "" {
		head, err := s.cfg.Log.Head(ctx) // the log may go on with events of others
		if err != nil || head >= last.at {
			return err
		}
		return setBack(last)
	}
	o := eventstore.ReadOptions{From: last.at, Limit: 1}
	if last.id == "" {
		o = eventstore.ReadOptions{Backward: true, Limit: 1}
	}
	for e, err := range s.read(ctx, r.Category, r.ID, o) {
		if err != nil {
			return err
		}
		there := seen(&e, r.ID != "")
		if there == last || last.id == "" && there.at >= last.at {
			return nil
		}
	}
	return setBack(last)
}

func setBack(last lastSeen) error {
	return problem.New(problem.Conflict, "the log does not have the event of the header Last-Event-ID, %.64q: it was set back, or is another log; begin anew, with from", last.String())
}
