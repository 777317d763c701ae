package pairs

import (
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/google/uuid"
)

const topic = "order.placed"

// placed is the event of the benchmarks, about 1 KiB of JSON.
type placed struct {
	EventID   string    `json:"eventId"`
	Timestamp time.Time `json:"timestamp"`
	Caller    int       `json:"caller"`
	Number    int       `json:"number"`
	Text      string    `json:"text"`
}

func (*placed) EventName() string { return "OrderPlacedEvent" }

func (e *placed) Stamp(id string, at time.Time) (string, time.Time) {
	if e.EventID == "" {
		e.EventID, e.Timestamp = id, at
	}
	return e.EventID, e.Timestamp
}

// encode stamps an event by hand, as a publisher without a bus does, and returns its body.
func (e *placed) encode() ([]byte, error) {
	id, err := uuid.NewV7()
	if err != nil {
		return nil, err
	}
	e.Stamp(id.String(), time.Now().UTC())
	return json.Marshal(e)
}

// decode reads an event by hand.
func decode(body []byte) (*placed, error) {
	e := new(placed)
	if err := json.Unmarshal(body, e); err != nil {
		return nil, err
	}
	return e, nil
}

// check fails the benchmark when an event is not as it was sent.
func (e *placed) check(b *testing.B) {
	if e.EventID == "" || e.Timestamp.IsZero() || e.Text != text {
		b.Errorf("event %d of caller %d is not as it was sent", e.Number, e.Caller)
	}
}
