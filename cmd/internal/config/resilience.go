package config

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"net/http"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-viper/mapstructure/v2"
	"github.com/knadh/koanf/v2"

	"github.com/bannou-mesh/bannou/pkg/mesh"
)

// resilienceKey holds the policies of calls in the file: maps, which no flag can express.
const resilienceKey = "mesh.resilience"

// Resilience is policies by name, and the targets that they are for; only in the YAML file, under mesh.resilience. The
// vocabulary is that of Dapr's resiliency, joined by bulkheads and hedges.
type Resilience struct {
	Policies struct {
		Timeouts        map[string]Timeout        `koanf:"timeouts"`
		Retries         map[string]Retry          `koanf:"retries"`
		CircuitBreakers map[string]CircuitBreaker `koanf:"circuitBreakers"`
		Bulkheads       map[string]Bulkhead       `koanf:"bulkheads"`
		Hedges          map[string]Hedge          `koanf:"hedges"`
	} `koanf:"policies"`
	Targets struct {
		Default Target            `koanf:"default"`
		Apps    map[string]Target `koanf:"apps"`
	} `koanf:"targets"`
}

// Timeout bounds a call, and each attempt until its response begins. In the file it may be the call's duration alone.
type Timeout struct {
	Call    time.Duration `koanf:"call"`
	Attempt time.Duration `koanf:"attempt"`
}

// Retry says what is sent again. What is absent has the mesh's default.
type Retry struct {
	Policy      string        `koanf:"policy"`      // constant, or exponential
	Duration    time.Duration `koanf:"duration"`    // the wait, or the longest first one
	MaxInterval time.Duration `koanf:"maxInterval"` // of exponential
	MaxRetries  *int          `koanf:"maxRetries"`  // 0: none; -1: while the deadline and the budget allow it
	Matching    struct {
		HTTPStatusCodes string `koanf:"httpStatusCodes"` // "429,502-504"
	} `koanf:"matching"`
	BudgetPercent   *int `koanf:"budgetPercent"`
	BudgetPerSecond *int `koanf:"budgetPerSecond"`
}

// CircuitBreaker says when calls of a target end at once.
type CircuitBreaker struct {
	MaxRequests *int          `koanf:"maxRequests"` // trials at once while it is half-open
	Timeout     time.Duration `koanf:"timeout"`     // how long it is open
	Trip        string        `koanf:"trip"`        // consecutiveFailures > N
	Lasting     time.Duration `koanf:"lasting"`     // for how long they must have failed
}

// Bulkhead bounds the calls of a target under way.
type Bulkhead struct {
	MaxInFlight int           `koanf:"maxInFlight"`
	MaxWaiting  int           `koanf:"maxWaiting"`
	MaxWait     time.Duration `koanf:"maxWait"`
}

// Hedge says when a read is sent to a second instance.
type Hedge struct {
	Delay time.Duration `koanf:"delay"` // absent: the p95 of the target
}

// Target names the policies of an app-id. What is absent is as for the default target, then as the mesh has it; none is
// none.
type Target struct {
	Timeout        string `koanf:"timeout"`
	Retry          string `koanf:"retry"`
	CircuitBreaker string `koanf:"circuitBreaker"`
	Bulkhead       string `koanf:"bulkhead"`
	Hedge          string `koanf:"hedge"`
}

// noPolicy is the name by which a target does without.
const noPolicy = "none"

// Resilience reads the policies of the YAML file; none when no file is named.
func (f File) Resilience() (Resilience, error) {
	var r Resilience
	if f == "" {
		return r, nil
	}
	values, err := read(string(f))
	if err != nil {
		return r, err
	}
	decoder := strict(&r)
	decoder.DecodeHook = mapstructure.ComposeDecodeHookFunc(durationAlone, withUnit)
	if err = values.UnmarshalWithConf(resilienceKey, &r, koanf.UnmarshalConf{DecoderConfig: decoder}); err != nil {
		return r, fmt.Errorf("%s: %s: %s", f, resilienceKey, oneLine(err))
	}
	return r, nil
}

// durationAlone lets a timeout be written as one duration.
func durationAlone(from, to reflect.Type, value any) (any, error) {
	if to == reflect.TypeFor[Timeout]() && from.Kind() != reflect.Map {
		return map[string]any{"call": value}, nil
	}
	return value, nil
}

// withUnit reads durations. A number alone would be nanoseconds.
func withUnit(_, to reflect.Type, value any) (any, error) {
	if to != reflect.TypeFor[time.Duration]() {
		return value, nil
	}
	text, _ := value.(string)
	d, err := time.ParseDuration(text)
	if err != nil {
		return nil, fmt.Errorf("%v is not a duration: write it with its unit, such as 250ms or 5s", value)
	}
	return d, nil
}

// Compile makes of the named policies what the mesh takes: one for every target, and those of some app-ids.
func (r *Resilience) Compile() (byDefault mesh.Policy, byApp map[string]mesh.Policy, err error) {
	if err := r.check(); err != nil {
		return mesh.Policy{}, nil, err
	}
	if byDefault, err = r.policy("targets.default", Target{}, r.Targets.Default); err != nil {
		return mesh.Policy{}, nil, err
	}
	byApp = map[string]mesh.Policy{}
	for _, app := range slices.Sorted(maps.Keys(r.Targets.Apps)) {
		if err := mesh.ValidateName("app-id", app); err != nil {
			return mesh.Policy{}, nil, fmt.Errorf("%s.targets.apps.%s: %w", resilienceKey, app, err)
		}
		if byApp[app], err = r.policy("targets.apps."+app, r.Targets.Default, r.Targets.Apps[app]); err != nil {
			return mesh.Policy{}, nil, err
		}
	}
	return byDefault, byApp, nil
}

// check looks at every policy, those that no target names included: what is wrong is wrong before someone uses it.
func (r *Resilience) check() error {
	p := &r.Policies
	return errors.Join(
		checkEach("timeouts", p.Timeouts, func(t Timeout) error { _, err := t.apply(mesh.Policy{}); return err }),
		checkEach("retries", p.Retries, func(t Retry) error { _, err := t.compile(); return err }),
		checkEach("circuitBreakers", p.CircuitBreakers, func(b CircuitBreaker) error { _, err := b.compile(); return err }),
		checkEach("bulkheads", p.Bulkheads, func(b Bulkhead) error { return b.check() }),
		checkEach("hedges", p.Hedges, func(h Hedge) error { return notNegative("delay", h.Delay) }),
	)
}

func checkEach[P any](kind string, policies map[string]P, check func(P) error) error {
	for _, name := range slices.Sorted(maps.Keys(policies)) {
		err := check(policies[name])
		if name == noPolicy {
			err = errors.New("a target says none to do without; choose another name")
		}
		if err != nil {
			return fmt.Errorf("%s.policies.%s.%s: %w", resilienceKey, kind, name, err)
		}
	}
	return nil
}

// policy puts together what a target names.
func (r *Resilience) policy(place string, byDefault, target Target) (policy mesh.Policy, err error) {
	p := &r.Policies
	for _, member := range []struct {
		name, fallback, member, kind string
		known                        []string
		none                         func()
		apply                        func(name string) error
	}{
		{target.Timeout, byDefault.Timeout, "timeout", "timeouts", names(p.Timeouts), func() {}, func(name string) (err error) {
			policy, err = p.Timeouts[name].apply(policy)
			return err
		}},
		{target.Retry, byDefault.Retry, "retry", "retries", names(p.Retries), func() { policy.Retry.Max = -1 }, func(name string) (err error) {
			policy.Retry, err = p.Retries[name].compile()
			return err
		}},
		{target.CircuitBreaker, byDefault.CircuitBreaker, "circuitBreaker", "circuitBreakers", names(p.CircuitBreakers), func() { policy.Breaker.Off = true }, func(name string) (err error) {
			policy.Breaker, err = p.CircuitBreakers[name].compile()
			return err
		}},
		{target.Bulkhead, byDefault.Bulkhead, "bulkhead", "bulkheads", names(p.Bulkheads), func() {}, func(name string) error {
			policy.Bulkhead = mesh.Bulkhead(p.Bulkheads[name])
			return nil
		}},
		{target.Hedge, byDefault.Hedge, "hedge", "hedges", names(p.Hedges), func() {}, func(name string) error {
			policy.Hedge = mesh.Hedge{On: true, Delay: p.Hedges[name].Delay}
			return nil
		}},
	} {
		name := member.name
		if name == "" {
			name = member.fallback
		}
		switch {
		case name == "":
		case name == noPolicy:
			member.none()
		case !slices.Contains(member.known, name):
			return policy, fmt.Errorf("%s.%s.%s names %q, which is not under policies.%s: choose %s", resilienceKey, place, member.member,
				name, member.kind, strings.Join(append(member.known, noPolicy), ", "))
		default:
			if err := member.apply(name); err != nil {
				return policy, err
			}
		}
	}
	return policy, nil
}

func names[P any](policies map[string]P) []string { return slices.Sorted(maps.Keys(policies)) }

func notNegative(member string, d time.Duration) error {
	if d < 0 {
		return fmt.Errorf("%s is %s: choose a positive duration", member, d)
	}
	return nil
}

func (t Timeout) apply(p mesh.Policy) (mesh.Policy, error) {
	switch {
	case t.Call < 0 || t.Attempt < 0 || t.Call == 0 && t.Attempt == 0:
		return p, fmt.Errorf("call is %s and attempt is %s: choose positive durations, such as 5s", t.Call, t.Attempt)
	case t.Call > 0 && t.Attempt >= t.Call:
		return p, fmt.Errorf("an attempt may take %s and the whole call %s: an attempt is shorter", t.Attempt, t.Call)
	}
	p.Timeout, p.AttemptTimeout = t.Call, t.Attempt
	return p, nil
}

func (r Retry) compile() (mesh.Retry, error) {
	m := mesh.Retry{Delay: r.Duration, MaxDelay: r.MaxInterval}
	switch r.Policy {
	case "", "exponential":
	case "constant":
		if r.MaxInterval != 0 {
			return m, errors.New("maxInterval belongs to policy exponential: a constant wait does not grow")
		}
		m.Constant = true
	default:
		return m, fmt.Errorf("policy is %q: choose constant or exponential", r.Policy)
	}
	if err := errors.Join(notNegative("duration", r.Duration), notNegative("maxInterval", r.MaxInterval)); err != nil {
		return m, err
	}
	if r.MaxInterval != 0 && r.MaxInterval < r.Duration {
		return m, fmt.Errorf("maxInterval is %s and duration %s: the longest wait is no shorter than the first", r.MaxInterval, r.Duration)
	}
	if r.MaxRetries != nil {
		switch m.Max = *r.MaxRetries; {
		case m.Max == 0:
			m.Max = -1 // for the mesh, where 0 is the default
		case m.Max == -1:
			m.Max = math.MaxInt32
		case m.Max < -1:
			return m, fmt.Errorf("maxRetries is %d: choose 0 for none, a number, or -1 for as many as deadline and budget allow", m.Max)
		}
	}
	for _, budget := range []struct {
		member string
		given  *int
		most   int
		into   *int
	}{{"budgetPercent", r.BudgetPercent, 100, &m.BudgetPercent}, {"budgetPerSecond", r.BudgetPerSecond, 100_000, &m.BudgetPerSecond}} {
		if budget.given == nil {
			continue
		}
		if *budget.given < 0 || *budget.given > budget.most {
			return m, fmt.Errorf("%s is %d: choose from 0 to %d", budget.member, *budget.given, budget.most)
		}
		if *budget.into = *budget.given; *budget.into == 0 {
			*budget.into = -1
		}
	}
	var err error
	m.Statuses, err = statusCodes(r.Matching.HTTPStatusCodes)
	return m, err
}

// statusCodes reads a list of codes and ranges.
func statusCodes(list string) (codes []int, err error) {
	if list == "" {
		return nil, nil
	}
	for part := range strings.SplitSeq(list, ",") {
		first, last, ranged := strings.Cut(strings.TrimSpace(part), "-")
		if !ranged {
			last = first
		}
		low, err1 := strconv.Atoi(first)
		high, err2 := strconv.Atoi(last)
		if err1 != nil || err2 != nil || low < http.StatusBadRequest || high > 599 || low > high {
			return nil, fmt.Errorf("matching.httpStatusCodes has %q: write codes and ranges from 400 to 599, such as 429,502-504", part)
		}
		for code := low; code <= high; code++ {
			codes = append(codes, code)
		}
	}
	return codes, nil
}

func (b CircuitBreaker) compile() (mesh.Breaker, error) {
	m := mesh.Breaker{OpenFor: b.Timeout, Lasting: b.Lasting}
	if err := errors.Join(notNegative("timeout", b.Timeout), notNegative("lasting", b.Lasting)); err != nil {
		return m, err
	}
	if b.MaxRequests != nil {
		if m.Trials = *b.MaxRequests; m.Trials < 1 {
			return m, fmt.Errorf("maxRequests is %d: choose 1 or more", m.Trials)
		}
	}
	if b.Trip == "" {
		return m, nil
	}
	parts := regexp.MustCompile(`^consecutiveFailures *(>=?) *([0-9]{1,6})$`).FindStringSubmatch(strings.TrimSpace(b.Trip))
	if parts == nil {
		return m, fmt.Errorf("trip is %q: write consecutiveFailures > 5; other expressions of Dapr are not known here", b.Trip)
	}
	m.Consecutive, _ = strconv.Atoi(parts[2]) // the expression has only digits
	if parts[1] == ">" {
		m.Consecutive++
	}
	if m.Consecutive == 0 {
		return m, errors.New("trip is true without a failure: write consecutiveFailures > 5")
	}
	if m.Lasting == 0 {
		m.Lasting = -1 // the expression says all
	}
	return m, nil
}

func (b Bulkhead) check() error {
	switch {
	case b.MaxInFlight < 1:
		return fmt.Errorf("maxInFlight is %d: say how many calls may be under way, 1 or more", b.MaxInFlight)
	case b.MaxWaiting < 0:
		return fmt.Errorf("maxWaiting is %d: choose 0 or more", b.MaxWaiting)
	case b.MaxWait != 0 && b.MaxWaiting == 0:
		return errors.New("maxWait is set and maxWaiting is not: say how many may wait")
	}
	return notNegative("maxWait", b.MaxWait)
}
