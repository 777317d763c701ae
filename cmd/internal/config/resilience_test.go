package config_test

import (
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/mesh"
)

func TestPoliciesByNameAndTarget(t *testing.T) {
	f, err := parse(t, "--config", file(t, `
mesh:
  zone: eu-1a
  resilience:
    policies:
      timeouts:
        general: 5s
        patient: {call: 1m, attempt: 10s}
      retries:
        important: {policy: constant, duration: 100ms, maxRetries: 5, matching: {httpStatusCodes: "429, 502-504"}}
        forever: {policy: exponential, duration: 50ms, maxInterval: 15s, maxRetries: -1, budgetPercent: 10, budgetPerSecond: 0}
        never: {maxRetries: 0}
      circuitBreakers:
        simple: {maxRequests: 2, timeout: 45s, trip: consecutiveFailures > 8}
        lasting: {lasting: 3s, trip: consecutiveFailures >= 8}
      bulkheads:
        small: {maxInFlight: 10, maxWaiting: 5, maxWait: 1s}
      hedges:
        reads: {delay: 50ms}
        learned: {}
    targets:
      default: {timeout: general, retry: forever, hedge: learned}
      apps:
        orders: {timeout: patient, retry: important, circuitBreaker: simple, bulkhead: small, hedge: reads}
        game.lobby: {retry: none, circuitBreaker: none, hedge: none}
        plain: {retry: never, circuitBreaker: lasting}
`))
	require.NoError(t, err)
	byDefault, byApp, err := f.Mesh.Resilience.Compile()
	require.NoError(t, err)
	forever := mesh.Retry{Max: math.MaxInt32, Delay: 50 * time.Millisecond, MaxDelay: 15 * time.Second, BudgetPercent: 10, BudgetPerSecond: -1}
	require.Equal(t, mesh.Policy{Timeout: 5 * time.Second, Retry: forever, Hedge: mesh.Hedge{On: true}}, byDefault)
	require.Equal(t, map[string]mesh.Policy{
		"orders": {Timeout: time.Minute, AttemptTimeout: 10 * time.Second,
			Retry:    mesh.Retry{Max: 5, Delay: 100 * time.Millisecond, Constant: true, Statuses: []int{429, 502, 503, 504}},
			Breaker:  mesh.Breaker{Consecutive: 9, Lasting: -1, OpenFor: 45 * time.Second, Trials: 2},
			Bulkhead: mesh.Bulkhead{MaxInFlight: 10, MaxWaiting: 5, MaxWait: time.Second},
			Hedge:    mesh.Hedge{On: true, Delay: 50 * time.Millisecond}},
		"game.lobby": {Timeout: 5 * time.Second, Retry: mesh.Retry{Max: -1}, Breaker: mesh.Breaker{Off: true}},
		"plain": {Timeout: 5 * time.Second, Retry: mesh.Retry{Max: -1}, Breaker: mesh.Breaker{Consecutive: 8, Lasting: 3 * time.Second},
			Hedge: mesh.Hedge{On: true}},
	}, byApp)
}

func TestWithoutPoliciesTheMeshHasItsOwn(t *testing.T) {
	f, err := parse(t)
	require.NoError(t, err)
	byDefault, byApp, err := f.Mesh.Resilience.Compile()
	require.NoError(t, err)
	require.Zero(t, byDefault)
	require.Empty(t, byApp)
}

func TestMistakesInPoliciesSayWhatAndWhatToDo(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"unknown name":        {"targets: {apps: {orders: {retry: importnat}}}", `mesh.resilience.targets.apps.orders.retry names "importnat", which is not under policies.retries: choose important, none`},
		"unknown default":     {"targets: {default: {timeout: general}}", `mesh.resilience.targets.default.timeout names "general", which is not under policies.timeouts: choose none`},
		"unknown member":      {"policies: {retries: {a: {attempts: 3}}}", "attempts"},
		"unknown kind":        {"policies: {fallbacks: {a: {}}}", "fallbacks"},
		"unknown target":      {"targets: {components: {}}", "components"},
		"target member":       {"targets: {apps: {orders: {retries: important}}}", "retries"},
		"app-id":              {"targets: {apps: {Orders: {retry: important}}}", "mesh.resilience.targets.apps.Orders: app-id must be lower-case letters"},
		"a policy none":       {"policies: {hedges: {none: {}}}", "mesh.resilience.policies.hedges.none: a target says none to do without"},
		"no unit":             {"policies: {timeouts: {a: 5}}", "5 is not a duration: write it with its unit"},
		"no unit inside":      {"policies: {retries: {a: {duration: 5}}}", "5 is not a duration"},
		"no duration":         {"policies: {timeouts: {a: soon}}", "soon"},
		"empty timeout":       {"policies: {timeouts: {a: {}}}", "choose positive durations"},
		"negative":            {"policies: {timeouts: {a: -5s}}", "choose positive durations"},
		"attempt over call":   {"policies: {timeouts: {a: {call: 1s, attempt: 1s}}}", "an attempt is shorter"},
		"retry policy":        {"policies: {retries: {a: {policy: linear}}}", `mesh.resilience.policies.retries.a: policy is "linear": choose constant or exponential`},
		"constant that grows": {"policies: {retries: {a: {policy: constant, maxInterval: 1s}}}", "a constant wait does not grow"},
		"intervals":           {"policies: {retries: {a: {duration: 2s, maxInterval: 1s}}}", "the longest wait is no shorter than the first"},
		"retries":             {"policies: {retries: {a: {maxRetries: -2}}}", "maxRetries is -2"},
		"codes":               {`policies: {retries: {a: {matching: {httpStatusCodes: "200"}}}}`, `matching.httpStatusCodes has "200"`},
		"code ranges":         {`policies: {retries: {a: {matching: {httpStatusCodes: "504-502"}}}}`, `matching.httpStatusCodes has "504-502"`},
		"budget":              {"policies: {retries: {a: {budgetPercent: 101}}}", "budgetPercent is 101: choose from 0 to 100"},
		"trip":                {"policies: {circuitBreakers: {a: {trip: totalFailures > 3}}}", "write consecutiveFailures > 5"},
		"trip at once":        {"policies: {circuitBreakers: {a: {trip: consecutiveFailures >= 0}}}", "true without a failure"},
		"trials":              {"policies: {circuitBreakers: {a: {maxRequests: 0}}}", "maxRequests is 0: choose 1 or more"},
		"bulkhead":            {"policies: {bulkheads: {a: {maxWaiting: 3}}}", "maxInFlight is 0"},
		"wait without line":   {"policies: {bulkheads: {a: {maxInFlight: 3, maxWait: 1s}}}", "say how many may wait"},
		"hedge":               {"policies: {hedges: {a: {delay: -1s}}}", "delay is -1s"},
	} {
		t.Run(name, func(t *testing.T) {
			text := "mesh:\n  resilience:\n    " + c.text + "\n"
			if name == "unknown name" {
				text += "    policies: {retries: {important: {}}}\n"
			}
			_, err := parse(t, "--config", file(t, text))
			require.ErrorContains(t, err, c.want)
			require.NotContains(t, err.Error(), "\n", "one line")
		})
	}
}
