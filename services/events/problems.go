package events

import (
	"context"
	"errors"
	"strings"

	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore"
	"github.com/bannou-mesh/bannou/services/problem"
)

// eventsProblem is an error of the log as callers see it. Problems stay as they are.
func eventsProblem(err error) error {
	if _, ok := errors.AsType[*problem.Problem](err); ok {
		return err
	}
	if version, ok := errors.AsType[*eventstore.VersionError](err); ok {
		return conflict(version).Because(err)
	}
	switch {
	case errors.Is(err, eventstore.ErrStreamClosed):
		_, which, _ := strings.Cut(err.Error(), "stream ") // what was asked is known to who asked
		return problem.New(problem.Conflict, "stream %s", which).Because(err)
	case errors.Is(err, eventstore.ErrNoMasterKey):
		return problem.New(problem.Unavailable, "this node was not given the master key that the keys of subjects are wrapped with: give it that one "+
			"with --events-master-key-file").Because(err)
	case errors.Is(err, eventstore.ErrIDTaken):
		return problem.New(problem.Conflict, "%s; nothing was appended: give new events new ids", reason(err)).Because(err)
	case errors.Is(err, state.ErrTooLarge):
		return problem.New(problem.ValueTooLarge, "%s", reason(err)).Because(err)
	case errors.Is(err, state.ErrUnsupported):
		return problem.New(problem.Unsupported, "%s", reason(err)).Because(err)
	case errors.Is(err, state.ErrNotFound):
		return problem.New(problem.NotFound, "%s", reason(err)).Because(err)
	case errors.Is(err, state.ErrOutcomeUnknown):
		return problem.New(problem.OutcomeUnknown, "the log did not answer in time: the append may or may not have been made; send the same "+
			"events with the same ids again, or read the stream before").Because(err)
	case errors.Is(err, state.ErrNoSpace):
		return problem.New(problem.Unavailable, "the disk of the log is full: nothing was appended; make room on it, then try again").Because(err)
	case errors.Is(err, state.ErrUnavailable):
		return problem.New(problem.Unavailable, "the database of the log is away and nothing was changed; try again").Because(err)
	case errors.Is(err, state.ErrCorrupt):
		return problem.New(problem.Internal, "what the log holds was damaged by someone else: %s", reason(err)).Because(err)
	case errors.Is(err, state.ErrInvalid):
		return problem.New(problem.InvalidMember, "the log refuses this: %s", reason(err)).Because(err)
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return problem.New(problem.Timeout, "the log was not asked in time; try again").Because(err)
	default:
		return err
	}
}

// conflict tells of a stream that has another version.
func conflict(v *eventstore.VersionError) *problem.Problem {
	p := problem.New(problem.Conflict, "%s: read the stream again, then decide", v.Error())
	expected := int64(v.Expected)
	p.Stream, p.ExpectedVersion, p.ActualVersion = v.Stream.String(), &expected, &v.Actual
	return p
}

// reason is what an error of the log says, without whose it is and the words of its sentinel.
func reason(err error) string {
	text := strings.TrimPrefix(err.Error(), "eventstore: ")
	for _, sentinel := range []error{state.ErrInvalid, state.ErrTooLarge, state.ErrUnsupported, state.ErrNotFound, state.ErrConflict} {
		if _, rest, found := strings.Cut(text, sentinel.Error()+": "); found && errors.Is(err, sentinel) {
			return rest
		}
	}
	return text
}
