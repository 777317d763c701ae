package messaging

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/services/messaging/messagingapi"
	"github.com/bannou-mesh/bannou/services/problem"
)

// tapPrefetch is how many events one tap copies at a time. Each waits for the broker's confirmation, which many share.
const tapPrefetch = 100

// CreateTap is POST /messaging/tap/create. A tap is a subscription whose events go to an exchange: it is kept, resumed,
// shared by instances and removed like one with a callback.
func (s *Service) CreateTap(ctx context.Context, r messagingapi.CreateTapRequestObject) (messagingapi.CreateTapResponseObject, error) {
	rec, err := s.newTap(ctx, r.Body)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, s.cfg.SubscribeTimeout)
	defer cancel()
	if _, err := s.create(ctx, rec); err != nil {
		return nil, err
	}
	return messagingapi.CreateTap200JSONResponse{TapID: rec.ID}, nil
}

// newTap checks the request member by member and makes the tap's record of it.
func (s *Service) newTap(ctx context.Context, body *messagingapi.CreateTapRequest) (record, error) {
	if err := problem.Require("topic", body.Topic, "exchange", body.Exchange); err != nil {
		return record{}, err
	}
	if err := s.maySubscribe(ctx, body.Topic); err != nil {
		return record{}, err
	}
	if err := s.cfg.Bus.CheckForward(body.Exchange); err != nil {
		return record{}, busProblem(err, "exchange")
	}
	if err := s.checkDurable(body.Options.Durable); err != nil {
		return record{}, err
	}
	id, err := uuid.NewV7()
	if err != nil {
		return record{}, err
	}
	rec := record{
		ID: id.String(), Topic: body.Topic, Exchange: body.Exchange, Durable: body.Options.Durable,
		PrefetchCount: tapPrefetch, CreatedAt: time.Now().UTC(),
	}
	if rec.Durable {
		rec.Group = rec.ownGroup()
	}
	return rec, nil
}

// forward copies one event. What it cannot copy is retried and then dead-lettered, like what a callback does not take.
func (sub *subscription) forward(ctx context.Context, _ *bus.Received) error {
	return sub.service.cfg.Bus.Forward(ctx, sub.record.Exchange)
}

// RemoveTap is POST /messaging/tap/delete.
func (s *Service) RemoveTap(ctx context.Context, r messagingapi.RemoveTapRequestObject) (messagingapi.RemoveTapResponseObject, error) {
	id := r.Body.TapID
	if err := problem.Require("tapId", id); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, s.cfg.SubscribeTimeout)
	defer cancel()
	found, err := s.remove(ctx, id, true)
	if err != nil {
		return nil, err
	}
	if !found {
		return nil, problem.New(problem.NotFound, "member tapId: there is no tap %.64q; it was removed, or went with the process "+
			"that had it", id).At("tapId")
	}
	return messagingapi.RemoveTap200JSONResponse{Success: true}, nil
}

// ListTaps is POST /messaging/tap/list: the durable ones, whichever instance made them, and the others of this instance.
func (s *Service) ListTaps(ctx context.Context, _ messagingapi.ListTapsRequestObject) (messagingapi.ListTapsResponseObject, error) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.SubscribeTimeout)
	defer cancel()
	all := records{}
	if s.cfg.Factory != nil {
		kept, err := s.readRecords(ctx)
		if err != nil {
			return nil, storeProblem(err)
		}
		maps.Copy(all, kept)
	}
	s.mu.Lock()
	for id, sub := range s.subscriptions {
		if !sub.record.Durable {
			all[id] = sub.record
		}
	}
	s.mu.Unlock()
	taps := []messagingapi.TapInfo{}
	for _, rec := range all {
		if rec.isTap() && !rec.ended() {
			taps = append(taps, messagingapi.TapInfo{
				TapID: rec.ID, Topic: rec.Topic, Exchange: rec.Exchange, Durable: rec.Durable, CreatedAt: rec.CreatedAt,
			})
		}
	}
	slices.SortFunc(taps, func(a, b messagingapi.TapInfo) int {
		return cmp.Or(a.CreatedAt.Compare(b.CreatedAt), cmp.Compare(a.TapID, b.TapID))
	})
	return messagingapi.ListTaps200JSONResponse{Taps: taps}, nil
}
