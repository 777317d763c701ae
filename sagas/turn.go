package sagas

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/uuid"
)

// What an instance keeps at most for states to come.
const (
	maxKept      = 100
	maxKeptBytes = 256 << 10
)

// Decide says what follows from a message, for an instance as it is: its zero value with Saga and Key where there is none. It changes and
// asks nothing, so that the same arguments give the same answer. That a message is a duplicate by its id, the caller knows.
func (s *Saga) Decide(current Instance, m Message, now time.Time) Turn {
	t := &turning{saga: s, i: current, message: m, now: now.UTC().Truncate(time.Microsecond)}
	t.i.Owed, t.i.Kept = slices.Clone(current.Owed), slices.Clone(current.Kept)
	t.i.Changed = t.now
	turn := t.decide()
	turn.Instance, turn.Publish = t.i, t.out
	if turn.Nothing {
		turn.Instance, turn.Publish = current, nil
	}
	return turn
}

// A turning makes one turn.
type turning struct {
	saga    *Saga
	i       Instance
	message Message
	now     time.Time
	out     []Outgoing
}

func (t *turning) decide() Turn {
	switch t.message.Kind {
	case KindEvent:
		return t.event()
	case KindAnswer, KindRefusal, KindFailure, KindSent, KindRepeat:
		return t.worked()
	case KindTimeout:
		return t.timeout()
	case KindRetry, KindCompensate, KindCancel:
		return t.request()
	case kindKept:
		return Turn{}
	case kindPark:
		if t.i.Status.Ended() || t.i.Status == Parked {
			return nothing(Ignore, "it has ended or is parked")
		}
		present := Step{State: t.i.State, Entry: t.i.Entry}
		t.i.Unissued = t.i.Unissued || t.i.Status == Running && t.message.Work != "" && t.message.Work == t.commandID(present, false)
		t.park(failureOf(t.message.Body), nil)
		return Turn{}
	default:
		return nothing(DeadLetter, fmt.Sprintf("no message is of kind %q", t.message.Kind))
	}
}

// leave parks an instance that this definition cannot go on with. The message waits in it.
func (t *turning) leave(reason string) Turn {
	t.message.Entry = t.i.Entry
	turn := t.keep(reason)
	if !turn.Nothing {
		t.park(reason, nil)
	}
	return turn
}

func nothing(p Policy, reason string) Turn { return Turn{Policy: p, Reason: reason, Nothing: true} }

func (t *turning) event() Turn {
	m := &t.message
	switch {
	case t.i.State == "" && !t.i.Status.Ended():
		return t.unknown()
	case t.confirms():
		t.i.Status, t.i.Parked = Undoing, nil // it may have been given up already
		t.undone()
		return Turn{}
	case t.i.Status == Parked:
		return t.keep("the instance is parked")
	case t.i.Status == Undoing:
		return t.refuse(t.saga.policies.Late, "the instance is being compensated")
	case t.i.Status.Ended():
		return t.refuse(t.saga.policies.Late, "the instance has ended")
	}
	if err := t.gone(t.i.State); err != nil {
		return t.leave(err.Error())
	}
	if on := t.waiting(*m); on != nil {
		t.take(on, *m)
		return Turn{}
	}
	for _, st := range t.saga.states {
		if find(st.on, KindEvent, m.Topic) != nil {
			if t.saga.policies.Early == Keep {
				return t.keep(fmt.Sprintf("state %q does not wait for it", t.i.State))
			}
			return t.refuse(t.saga.policies.Early, fmt.Sprintf("state %q does not wait for it", t.i.State))
		}
	}
	if find(t.saga.start, KindEvent, m.Topic) != nil {
		return t.refuse(t.saga.policies.Duplicate, "the instance was started")
	}
	return t.refuse(t.saga.policies.Late, "what is undone by it is not being undone")
}

// confirms reports whether the message says that what is being undone is undone.
func (t *turning) confirms() bool {
	w := t.i.Work
	undoing := t.i.Status == Undoing || t.i.Status == Parked && t.i.Parked.From == Undoing
	return undoing && w != nil && w.Undo && w.Until != "" && w.Until == t.message.Topic
}

// unknown takes an event of an instance that was not started.
func (t *turning) unknown() Turn {
	m := t.message
	if on := find(t.saga.start, KindEvent, m.Topic); on != nil {
		t.begin(on, m)
		return Turn{}
	}
	if t.i.Status == Parked {
		return t.keep("the instance was not started")
	}
	return t.refuse(t.saga.policies.Unknown, "no instance has its key, and it starts none")
}

// begin starts the instance.
func (t *turning) begin(on *transition, m Message) {
	t.i.Definition, t.i.Data = t.saga.version, t.saga.begin
	t.i.Status, t.i.Parked = Running, nil
	switch {
	case m.Correlation != "":
		t.i.Correlation = m.Correlation
	case t.i.Correlation == "":
		t.i.Correlation = m.ID
	}
	if t.i.Started.IsZero() {
		t.i.Started = t.now
	}
	t.take(on, m)
}

// refuse does what a policy says.
func (t *turning) refuse(p Policy, reason string) Turn {
	switch p {
	case Park:
		if t.i.Status == statusAbsent {
			t.i.Definition, t.i.Started = t.saga.version, t.now
		}
		t.park(reason+": "+t.message.Topic, &t.message)
		return Turn{Policy: Park, Reason: reason}
	case DeadLetter:
		return nothing(DeadLetter, reason)
	default:
		return nothing(Ignore, reason)
	}
}

// keep has the message wait in the instance.
func (t *turning) keep(reason string) Turn {
	size := len(t.message.Body)
	for i := range t.i.Kept {
		size += len(t.i.Kept[i].Body)
	}
	if len(t.i.Kept) >= maxKept || size > maxKeptBytes {
		return nothing(DeadLetter, reason+", and keeps as much as it can")
	}
	t.i.Kept = append(t.i.Kept, t.message)
	return Turn{Policy: Keep, Reason: reason}
}

// park has the instance wait for a person. A message that it could not deal with is taken first when it goes on.
func (t *turning) park(reason string, m *Message) {
	from := t.i.Status
	if t.i.Parked != nil {
		from = t.i.Parked.From
	}
	if m != nil {
		t.i.Kept = slices.Insert(t.i.Kept, 0, *m)
	}
	const most = 2000
	if reason = text(reason); len(reason) > most {
		reason = strings.ToValidUTF8(reason[:most], "") // the cut may be within a letter
	}
	t.i.Status, t.i.Due = Parked, nil
	t.i.Parked = &Parking{Reason: reason, From: from, Since: t.now}
	if t.i.Work != nil {
		w := *t.i.Work
		w.Due = nil
		t.i.Work = &w
	}
}

func find(on []transition, kind Kind, topic string) *transition {
	for i := range on {
		if on[i].kind == kind && on[i].topic == topic {
			return &on[i]
		}
	}
	return nil
}

// waiting is what the present state does with a message.
func (t *turning) waiting(m Message) *transition {
	st := t.saga.byName[t.i.State]
	if st == nil {
		return nil
	}
	on := find(st.on, m.Kind, m.Topic)
	if on == nil || on.takes != nil && !on.taken(m.Body) {
		return nil
	}
	return on
}

// taken reports whether the transition is for what a message says.
func (on *transition) taken(body jsontext.Value) (is bool) {
	var err error
	defer recovered(&err) // the function is the definition's
	return on.takes(body)
}

// take makes a transition, and those that kept messages then make.
func (t *turning) take(on *transition, m Message) {
	t.step(on, m)
	t.takeKept()
}

func (t *turning) takeKept() {
	for t.i.Status == Running {
		next := slices.IndexFunc(t.i.Kept, func(m Message) bool {
			return t.waiting(m) != nil && (m.Kind == KindEvent || m.Entry == t.i.Entry)
		})
		if next < 0 {
			return
		}
		m := t.i.Kept[next]
		t.i.Kept = slices.Delete(t.i.Kept, next, next+1)
		t.step(t.waiting(m), m)
	}
}

// step makes one transition.
func (t *turning) step(on *transition, m Message) {
	next, data, err := on.run(t.i.Data, m.Body)
	if err == nil && !slices.Contains(on.to, next) {
		err = fmt.Errorf("%q is not among the states that it may go to", next)
	}
	if err != nil {
		what := string(m.Kind)
		if m.Topic != "" {
			what = m.Topic
		}
		m.Entry = t.i.Entry
		t.park(fmt.Sprintf("state %q cannot deal with %s: %v", t.i.State, what, err), &m)
		return
	}
	t.i.Data = data
	if next == Compensating {
		t.compensate(fmt.Sprintf("%s in state %q", m.what(), t.i.State))
		return
	}
	t.enter(next)
}

func (m *Message) what() string {
	if m.Topic != "" {
		return m.Topic
	}
	return string(m.Kind)
}

// enter makes a state the present one, and issues what it does.
func (t *turning) enter(name string) {
	st := t.saga.byName[name]
	t.i.State, t.i.Work, t.i.Due, t.i.Unissued = name, nil, nil, false
	t.i.Entry++
	if st.end {
		t.i.Status = Completed
		t.i.Kept = nil
	}
	if on := find(st.on, KindTimeout, ""); on != nil {
		t.i.Due = t.in(on.after)
	}
	if st.do.none() {
		return
	}
	step := Step{State: name, Entry: t.i.Entry}
	if err := t.issue(&st.do, step, false); err != nil {
		t.i.Status, t.i.Unissued = Running, true
		t.park(fmt.Sprintf("state %q cannot make its command: %v", name, err), nil)
		return
	}
	if !st.undo.none() {
		t.i.Owed = append(t.i.Owed, step)
	}
}

func (t *turning) in(d time.Duration) *time.Time {
	at := t.now.Add(d)
	return &at
}

// issue publishes a command, or has it called.
func (t *turning) issue(c *command, step Step, undo bool) (err error) {
	defer recovered(&err) // the event is the definition's
	id, undoes := t.commandID(step, undo), ""
	if undo {
		undoes = t.commandID(step, false)
	}
	if c.isCall() {
		body, err := c.body(t.i.Data)
		if err != nil {
			return err
		}
		t.i.Work = &Work{Step: step, ID: id, Undo: undo, Target: c.target, Method: c.method, Body: body, Attempt: 1, Due: t.in(0)}
		return nil
	}
	e, err := c.event(t.i.Data)
	if err != nil {
		return err
	}
	if own, _ := e.Stamp(id, t.now); own != id {
		return fmt.Errorf("its event has the id %q: leave it empty, it gets that of the command", own)
	}
	body, err := json.Marshal(e)
	if err != nil {
		return err
	}
	t.out = append(t.out, Outgoing{ID: id, Topic: c.topic, Type: e.EventName(), Body: body, Undoes: undoes, Tell: undo && c.until == ""})
	if undo {
		t.i.Work = &Work{Step: step, ID: id, Undo: true, Until: c.until, Attempt: 1}
		if c.until != "" {
			t.i.Work.Due = t.in(t.saga.retry.Timeout)
		}
	}
	return nil
}

// timeout fires when the state is still the one that it was set for.
func (t *turning) timeout() Turn {
	if t.i.Status != Running || t.i.Entry != t.message.Entry {
		return nothing(Ignore, "the state that it was set for has ended")
	}
	if err := t.gone(t.i.State); err != nil {
		return t.leave(err.Error())
	}
	on := t.waiting(t.message)
	if on == nil {
		return nothing(Ignore, "the state has no timeout")
	}
	t.take(on, t.message)
	return Turn{}
}

// commandID is the id of a command, the same each time it is issued.
func (t *turning) commandID(step Step, undo bool) string {
	what := "do"
	if undo {
		what = "undo"
	}
	return derived(t.i.Saga, t.i.Key, what, strconv.Itoa(step.Entry))
}

// space is what ids are derived in, RFC 9562 version 5.
var space = uuid.MustParse("6f0d7a52-5d0c-4f0e-8d4e-0b8a4f1c9f57") //nolint:gochecknoglobals // a constant

// derived is a UUID that the same words always give.
func derived(words ...string) string {
	var name []byte
	for _, w := range words {
		name = strconv.AppendInt(name, int64(len(w)), 10)
		name = append(name, ':')
		name = append(name, w...)
	}
	return uuid.NewSHA1(space, name).String()
}

// text is what JSON takes as a string. What failed may have said anything.
func text(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }

// failing is the body of a Failure.
func failing(reason string) jsontext.Value {
	body, _ := json.Marshal(Failure{Reason: text(reason)}) // a string cannot fail
	return body
}

func failureOf(body jsontext.Value) string {
	var f Failure
	if err := decode(body, &f); err != nil || f.Reason == "" {
		return "something failed"
	}
	return f.Reason
}
