package sagas

import (
	"fmt"
	"slices"
	"time"
)

// maxPauses is how many times the first pause between attempts the longest one is.
const maxPauses = 60

// compensate begins to undo what is owed.
func (t *turning) compensate(reason string) {
	t.i.Status, t.i.Due, t.i.Work, t.i.Parked = Undoing, nil, nil, nil
	t.i.Reason = reason
	t.undoNext()
}

// undoNext issues the undo of the last step that is owed, or ends the instance where there is none.
func (t *turning) undoNext() {
	if len(t.i.Owed) == 0 {
		t.i.Status, t.i.Kept = Compensated, nil
		return
	}
	t.undo(t.i.Owed[len(t.i.Owed)-1])
}

// undo issues the undo of a step, or parks the instance where that cannot be.
func (t *turning) undo(step Step) {
	err := t.gone(step.State)
	if err == nil {
		err = t.issue(&t.saga.byName[step.State].undo, step, true)
	}
	if err != nil {
		t.park(fmt.Sprintf("the undo of %q cannot be made: %v", step.State, err), nil)
	}
}

// gone is an error where the definition does not have a state that an instance of its version is in, or has been in: it was changed.
func (t *turning) gone(state string) error {
	if t.saga.byName[state] == nil {
		return fmt.Errorf("state %q is not in this definition", state)
	}
	return nil
}

// undone enters that the last step that is owed was undone.
func (t *turning) undone() {
	t.i.Work = nil
	t.i.Owed = t.i.Owed[:len(t.i.Owed)-1]
	t.undoNext()
}

// worked takes what became of a call or an undo.
func (t *turning) worked() Turn {
	w, m := t.i.Work, t.message
	if w == nil || w.ID != m.Work || (t.i.Status != Running && t.i.Status != Undoing) {
		return nothing(Ignore, "nothing waits for it")
	}
	switch {
	case m.Kind == KindFailure:
		return t.failed(w)
	case m.Kind == KindRepeat:
		return t.repeat(w)
	case w.Undo && m.Kind == KindRefusal:
		var r Refusal
		_ = decode(m.Body, &r)
		t.park(fmt.Sprintf("the undo of %q was refused with %d: %s", w.State, r.Status, r.Detail), nil)
	case w.Undo:
		t.undone()
	default:
		if err := t.gone(t.i.State); err != nil {
			return t.leave(err.Error())
		}
		on := t.waiting(m)
		if on == nil { // only answers have to be waited for
			var r Refusal
			_ = decode(m.Body, &r)
			t.park(fmt.Sprintf("the call of %q was refused with %d: %s", w.State, r.Status, r.Detail), nil)
			return Turn{}
		}
		m.Entry = t.i.Entry
		t.i.Work = nil
		t.take(on, m)
	}
	return Turn{}
}

// failed has a call made again later, or gives it up.
func (t *turning) failed(w *Work) Turn {
	again := *w
	again.Failure = failureOf(t.message.Body)
	if w.Attempt < t.saga.retry.Attempts {
		again.Attempt++
		again.Due = t.in(t.pause(w.Attempt))
		t.i.Work = &again
		return Turn{}
	}
	if on := t.waiting(t.message); on != nil && !w.Undo {
		m := t.message
		m.Entry = t.i.Entry
		t.i.Work = nil
		t.take(on, m)
		return Turn{}
	}
	t.i.Work = &again
	what := "call"
	if w.Undo {
		what = "undo"
	}
	t.park(fmt.Sprintf("the %s of %q failed %d times: %s", what, w.State, w.Attempt, again.Failure), nil)
	return Turn{}
}

func (t *turning) pause(attempt int) time.Duration {
	pause, most := t.saga.retry.Pause, maxPauses*t.saga.retry.Pause
	for i := 1; i < attempt && pause < most; i++ {
		pause *= 2
	}
	return min(pause, most)
}

// repeat publishes an undo again that was not confirmed in time. One that the broker confirms is due when it has, as a program entered that could not go on.
func (t *turning) repeat(w *Work) Turn {
	if w.Until == "" {
		if !w.Undo || w.Due == nil {
			return nothing(Ignore, "it is not repeated")
		}
		t.undone()
		return Turn{}
	}
	if w.Attempt >= t.saga.retry.Attempts {
		t.park(fmt.Sprintf("the undo of %q was published %d times, and no %s came", w.State, w.Attempt, w.Until), nil)
		return Turn{}
	}
	attempt := w.Attempt + 1
	if t.undo(w.Step); t.i.Status == Parked {
		return Turn{}
	}
	t.i.Work.Attempt = attempt
	t.i.Work.Due = t.in(t.saga.retry.Timeout + t.pause(attempt))
	return Turn{}
}

// request does what a person asks for, where the instance is in a condition for it.
func (t *turning) request() Turn {
	i, m := &t.i, t.message
	switch {
	case i.Status == statusAbsent:
		return nothing(Ignore, "there is no such instance")
	case m.Kind == KindRetry && i.Status != Parked:
		return nothing(Ignore, fmt.Sprintf("it is %s, and not parked", i.Status))
	case m.Kind == KindCompensate && i.Status != Parked && i.Status != Running:
		return nothing(Ignore, fmt.Sprintf("it is %s, and neither running nor parked", i.Status))
	case m.Kind == KindCancel && i.Status.Ended():
		return nothing(Ignore, fmt.Sprintf("it is %s already", i.Status))
	}
	var r Request
	_ = decode(m.Body, &r)
	switch m.Kind {
	case KindCompensate:
		if i.State == "" {
			return nothing(Ignore, "it was not started: there is nothing to undo; cancel it")
		}
		t.compensate("asked for: " + r.Note)
	case KindCancel:
		i.Status, i.Parked, i.Due, i.Work, i.Kept = Cancelled, nil, nil, nil, nil
		i.Reason = "asked for: " + r.Note
	default:
		return t.goOn()
	}
	return Turn{}
}

// goOn tries again what a parked instance stopped at.
func (t *turning) goOn() Turn {
	i := &t.i
	if i.State == "" {
		return t.beginAgain()
	}
	if i.Parked.From == Running {
		if err := t.gone(i.State); err != nil {
			return nothing(Ignore, err.Error())
		}
	}
	i.Status, i.Parked = i.Parked.From, nil
	switch {
	case i.Status.Ended(): // it was parked by something that came late
		i.Kept = nil
	case i.Status == Undoing && i.Work == nil:
		t.undoNext()
	case i.Status == Undoing:
		t.undo(i.Work.Step)
	default:
		t.goOnRunning()
	}
	return Turn{}
}

// beginAgain starts an instance with the message that it could not be started with before.
func (t *turning) beginAgain() Turn {
	for n, m := range t.i.Kept {
		if on := find(t.saga.start, KindEvent, m.Topic); on != nil {
			t.i.Kept = slices.Delete(t.i.Kept, n, n+1)
			t.begin(on, m)
			return Turn{}
		}
	}
	return nothing(Ignore, "it waits for its start; cancel it if none comes")
}

// goOnRunning has the present state wait again for what it waits for.
func (t *turning) goOnRunning() {
	i, st := &t.i, t.saga.byName[t.i.State]
	if i.Unissued {
		if n := len(i.Owed) - 1; n >= 0 && i.Owed[n] == (Step{State: i.State, Entry: i.Entry}) {
			i.Owed = i.Owed[:n] // it is owed anew
		}
		i.Entry--
		t.enter(i.State)
		t.takeKept()
		return
	}
	if on := find(st.on, KindTimeout, ""); on != nil {
		i.Due = t.in(on.after)
	}
	if i.Work != nil {
		again := *i.Work
		again.Attempt, again.Due = 1, t.in(0)
		i.Work = &again
	}
	t.takeKept()
}
