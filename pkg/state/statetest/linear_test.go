package statetest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/memorystate"
)

// The suite would say that an engine is right if it could not tell a wrong one. Each of these is wrong in one way that engines have been.
func TestHistoriesFindWhatIsWrong(t *testing.T) {
	for _, c := range []struct {
		name string
		bad  brokenEngine
		says string
	}{
		{"condition checked before the change, not with it", brokenEngine{apply: checkThenChange}, "no order"},
		{"reads of a replica that is behind", brokenEngine{get: staleReads()}, "no order"},
		{"expiry lost by a conditional save", brokenEngine{apply: dropExpiry}, "no order"},
		{"expiry late", brokenEngine{apply: expireLate}, "no order"},
		{"acknowledged and not made", brokenEngine{apply: loseSome}, "no order"},
		{"refused and made", brokenEngine{apply: refuseWhatWasMade}, "no order"},
		{"made twice", brokenEngine{apply: makeTwice}, "no order"},
		{"transaction made by half", brokenEngine{transact: halfTransactions}, "no order"},
		{"ETags that come again", brokenEngine{get: versionsRead, apply: versionsApplied}, "ETag"},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := recordBroken(t, c.bad)
			require.NoError(t, h.failure)
			err := h.check()
			require.ErrorContains(t, err, c.says)
			require.ErrorContains(t, err, fmt.Sprint("seed ", h.seed))
			t.Logf("%.1500s", err)
		})
	}
}

// What is unknown may have been made, then or later, or never: an engine that says so is right.
func TestHistoriesAllowUnknownOutcomes(t *testing.T) {
	var late sync.WaitGroup
	h := recordBroken(t, brokenEngine{apply: func(ctx context.Context, e state.Engine, c []state.Change) ([]state.Outcome, error) {
		switch rand.IntN(60) {
		case 0:
			return nil, fmt.Errorf("never made: %w", state.ErrOutcomeUnknown)
		case 1:
			_, _ = e.Apply(ctx, c)
			return nil, fmt.Errorf("made: %w", state.ErrOutcomeUnknown)
		case 2:
			late.Go(func() {
				<-time.After(20 * time.Millisecond)
				_, _ = e.Apply(context.WithoutCancel(ctx), c)
			})
			return nil, fmt.Errorf("made later: %w", state.ErrOutcomeUnknown)
		}
		return e.Apply(ctx, c)
	}})
	late.Wait()
	require.NoError(t, h.failure)
	require.NoError(t, h.check())
	require.NotZero(t, h.unknown())
}

func recordBroken(t *testing.T, bad brokenEngine) *history {
	t.Helper()
	d := &brokenDriver{Driver: memorystate.New(), bad: bad}
	f := factory(t, d, state.Options{}, state.StoreConfig{Name: "s"})
	store, err := state.Open[int64](t.Context(), f, "s")
	require.NoError(t, err)
	return record(t.Context(), store, HistoryOptions{Seed: rand.Uint64()})
}

type brokenDriver struct {
	state.Driver
	bad brokenEngine
}

func (d *brokenDriver) Open(ctx context.Context, cfg state.StoreConfig) (state.Engine, error) {
	e, err := d.Driver.Open(ctx, cfg)
	bad := d.bad
	bad.Engine = e
	return &bad, err
}

// A brokenEngine does some things in another way. Nil: as the engine below.
type brokenEngine struct {
	state.Engine
	get             func(ctx context.Context, e state.Engine, keys []string) ([]state.Record, error)
	apply, transact func(ctx context.Context, e state.Engine, c []state.Change) ([]state.Outcome, error)
}

func (e *brokenEngine) Get(ctx context.Context, keys []string) ([]state.Record, error) {
	if e.get != nil {
		return e.get(ctx, e.Engine, keys)
	}
	return e.Engine.Get(ctx, keys)
}

func (e *brokenEngine) Apply(ctx context.Context, c []state.Change) ([]state.Outcome, error) {
	if e.apply != nil {
		return e.apply(ctx, e.Engine, c)
	}
	return e.Engine.Apply(ctx, c)
}

func (e *brokenEngine) Transact(ctx context.Context, c []state.Change) ([]state.Outcome, error) {
	if e.transact != nil {
		return e.transact(ctx, e.Engine, c)
	}
	return e.Engine.Transact(ctx, c)
}

func checkThenChange(ctx context.Context, e state.Engine, c []state.Change) ([]state.Outcome, error) {
	if c[0].When == state.IfETag {
		records, err := e.Get(ctx, []string{c[0].Key})
		if err == nil && records[0].ETag == c[0].ETag {
			runtime.Gosched()
			c[0].When = state.Always
		}
	}
	return e.Apply(ctx, c)
}

func staleReads() func(context.Context, state.Engine, []string) ([]state.Record, error) {
	var cache sync.Map
	return func(ctx context.Context, e state.Engine, keys []string) ([]state.Record, error) {
		records, err := e.Get(ctx, keys)
		for i := range records {
			if old, ok := cache.Swap(keys[i], records[i]); ok && rand.IntN(30) == 0 {
				records[i] = old.(state.Record)
			}
		}
		return records, err
	}
}

func dropExpiry(ctx context.Context, e state.Engine, c []state.Change) ([]state.Outcome, error) {
	if c[0].When == state.IfETag && c[0].Expiry == state.Keep {
		c[0].Expiry = state.Never
	}
	return e.Apply(ctx, c)
}

func expireLate(ctx context.Context, e state.Engine, c []state.Change) ([]state.Outcome, error) {
	if c[0].Expiry == state.After(historyTTL) {
		c[0].Expiry = state.After(3 * historyTTL)
	}
	return e.Apply(ctx, c)
}

func loseSome(ctx context.Context, e state.Engine, c []state.Change) ([]state.Outcome, error) {
	if !c[0].Delete && c[0].When == state.Always && rand.IntN(20) == 0 {
		return []state.Outcome{{Done: true, ETag: "lost" + strconv.Itoa(rand.Int()), Version: 1}}, nil
	}
	return e.Apply(ctx, c)
}

func refuseWhatWasMade(ctx context.Context, e state.Engine, c []state.Change) ([]state.Outcome, error) {
	outcomes, err := e.Apply(ctx, c)
	if !c[0].Delete && rand.IntN(20) == 0 {
		return nil, state.ErrUnavailable
	}
	return outcomes, err
}

func makeTwice(ctx context.Context, e state.Engine, c []state.Change) ([]state.Outcome, error) {
	if c[0].When == state.Always && rand.IntN(20) == 0 {
		_, _ = e.Apply(ctx, c)
	}
	return e.Apply(ctx, c)
}

func halfTransactions(ctx context.Context, e state.Engine, c []state.Change) ([]state.Outcome, error) {
	outcomes, err := e.Transact(ctx, c)
	if err == nil && outcomes[0].Conflict != outcomes[1].Conflict {
		for i, o := range outcomes {
			if !o.Conflict {
				_, _ = e.Apply(ctx, c[i:i+1])
			}
		}
	}
	return outcomes, err
}

// versionsRead and versionsApplied show versions as ETags, which begin anew after a delete.
func versionsRead(ctx context.Context, e state.Engine, keys []string) ([]state.Record, error) {
	records, err := e.Get(ctx, keys)
	for i := range records {
		records[i].ETag = "v" + strconv.FormatInt(records[i].Version, 10)
	}
	return records, err
}

func versionsApplied(ctx context.Context, e state.Engine, c []state.Change) ([]state.Outcome, error) {
	if version, ok := strings.CutPrefix(c[0].ETag, "v"); ok {
		records, err := e.Get(ctx, []string{c[0].Key})
		if err == nil && strconv.FormatInt(records[0].Version, 10) == version {
			c[0].ETag = records[0].ETag
		}
	}
	outcomes, err := e.Apply(ctx, c)
	if err == nil && outcomes[0].ETag != "" {
		outcomes[0].ETag = "v" + strconv.FormatInt(outcomes[0].Version, 10)
	}
	return outcomes, err
}
