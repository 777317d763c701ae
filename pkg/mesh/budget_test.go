package mesh

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// Within any ten seconds, further attempts are no more than the share of the calls and the allowance.
func TestBudgetHoldsInEveryWindow(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		retry := Retry{BudgetPercent: rapid.IntRange(-1, 100).Draw(t, "percent"), BudgetPerSecond: rapid.IntRange(-1, 3).Draw(t, "allowance")}
		b := newBudget(&retry)
		now := time.Hour + time.Duration(rapid.IntRange(0, 1000).Draw(t, "begin"))*time.Millisecond
		var calls, spent []time.Duration
		within := func(times []time.Duration) (n int) {
			for _, at := range times {
				if at > now-budgetWindow {
					n++
				}
			}
			return n
		}
		refused := 0
		for range rapid.IntRange(1, 300).Draw(t, "steps") {
			now += time.Duration(rapid.SampledFrom([]int{0, 0, 1, 50, 999, 1000, 30_000}).Draw(t, "pause")) * time.Millisecond
			if rapid.IntRange(0, 2).Draw(t, "what") == 0 {
				b.called(now)
				calls = append(calls, now)
				continue
			}
			if !b.withdraw(now) {
				refused++
				continue
			}
			spent = append(spent, now)
			most := float64(max(0, retry.BudgetPercent))/100*float64(within(calls)) + float64(10*max(0, retry.BudgetPerSecond))
			require.LessOrEqual(t, float64(within(spent)), most)
		}
	})
}

func TestBudgetIsNotStingy(t *testing.T) {
	retry, err := Retry{}.withDefaults()
	require.NoError(t, err)
	b := newBudget(&retry)
	now := time.Hour
	for range 1000 {
		b.called(now)
	}
	granted := 0
	for range 1000 {
		if b.withdraw(now) {
			granted++
		}
	}
	require.Equal(t, 200+100, granted, "a fifth of the calls, and ten for each second")
	require.False(t, b.withdraw(now+9*time.Second))
	require.True(t, b.withdraw(now+11*time.Second), "what was spent is forgotten")
}
