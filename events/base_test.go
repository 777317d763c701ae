package events_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/bannou-mesh/bannou/events"
)

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

func TestStampGivesIdentityOnce(t *testing.T) {
	e := &events.AccountDeletedEvent{AccountID: "a"}
	id, at := e.Stamp("first", noon)
	if id != "first" || !at.Equal(noon) || e.EventID != "first" || !e.Timestamp.Equal(noon) {
		t.Errorf("a new event was stamped %q, %s and is %+v", id, at, e.Base)
	}
	id, at = e.Stamp("second", noon.Add(time.Hour))
	if id != "first" || !at.Equal(noon) || e.EventID != "first" {
		t.Errorf("published again, the event became %q, %s: it must stay what it was", id, at)
	}
}

func TestStampFillsOnlyWhatIsMissing(t *testing.T) {
	withID := events.Base{EventID: "own"}
	if id, at := withID.Stamp("given", noon); id != "own" || !at.Equal(noon) {
		t.Errorf("an event with an id was stamped %q, %s", id, at)
	}
	withTime := events.Base{Timestamp: noon}
	if id, at := withTime.Stamp("given", noon.Add(time.Hour)); id != "given" || !at.Equal(noon) {
		t.Errorf("an event with a time was stamped %q, %s", id, at)
	}
}

// The time that a publisher sees must be the one that a receiver sees, to the last bit.
func TestStampedTimeIsUTCAndSurvivesTheWire(t *testing.T) {
	e := &events.AccountDeletedEvent{}
	zone := time.FixedZone("elsewhere", 5400)
	_, at := e.Stamp("id", time.Now().In(zone))
	if at.Location() != time.UTC {
		t.Errorf("stamped with %s, want UTC", at)
	}
	own := events.Base{Timestamp: noon.In(zone)}
	if _, at := own.Stamp("id", noon); at != noon {
		t.Errorf("the event's own time became %s, want %s", at, noon)
	}
	var received events.AccountDeletedEvent
	body, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(body, &received); err != nil {
		t.Fatal(err)
	}
	if received.Timestamp != e.Timestamp {
		t.Errorf("sent %#v, received %#v", e.Timestamp, received.Timestamp)
	}
}
