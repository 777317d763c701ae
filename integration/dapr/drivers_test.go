package dapr_test

import (
	"flag"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/integration/servers"
	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/daprstate"
	"github.com/bannou-mesh/bannou/pkg/state/statetest"
)

var driversPage = flag.String("drivers", "", "document whose tables of what the drivers over a sidecar keep this run writes") // a flag

// What a state component of Dapr does not do, over HTTP, with daprd 1.14.
const (
	asFloats    = "missing: the sidecar reads numbers as 64-bit floats; a value with one that would change is refused"
	asSameJSON  = "missing: the sidecar writes the JSON anew"
	noTimes     = "missing: Dapr keeps none"
	noCount     = "missing: Dapr's API has no such call; ErrUnsupported"
	wholeSecond = "missing: ttlInSeconds; rounded up"
)

func missingOnRedis() map[statetest.Promise]string {
	return map[statetest.Promise]string{
		statetest.Text: asSameJSON, statetest.Times: noTimes, statetest.Counting: noCount, statetest.Milliseconds: wholeSecond,
		statetest.Numbers:    "missing: as 64-bit floats, written with six digits after the point; a value with one that would change is refused",
		statetest.ExpiryTold: "missing: the component does not tell it",
		statetest.FreshETags: "missing: it is the version, which begins anew with the key",
		statetest.ToldETags:  "missing: a save without a condition is answered without one, and read again; when another came between, the ETag told is of no use",
		statetest.Conditions: "missing: the component makes the other changes when one does not hold; ErrUnsupported",
		statetest.OneLine:    "missing: the component takes any ETag of a key that is absent",
		statetest.AllKeys:    "missing: none with two bars in a row",
	}
}

func missingOnMySQL() map[statetest.Promise]string {
	return map[statetest.Promise]string{
		statetest.Text: asSameJSON, statetest.Times: noTimes, statetest.Counting: noCount, statetest.Milliseconds: wholeSecond,
		statetest.Numbers:      asFloats,
		statetest.Versions:     "missing: ETags are random",
		statetest.ToldETags:    "missing: a save is answered without one, and read again; when another came between, the ETag told is of no use",
		statetest.AllKeys:      "missing: none with two bars in a row, and none that is longer than 255 characters with the app's and the store's name before it",
		statetest.DistinctKeys: "missing: the table's collation takes keys that differ in case, accents or blanks at the end for one",
	}
}

// The driver over a sidecar is held to the suite of the native ones, on each kind of component, but for what is declared as missing.
func TestStateDriver(t *testing.T) {
	set := servers.All(t)
	kinds := []struct {
		kind, component string
		features        statetest.Features
	}{
		{"state.redis", component("statestore", "state.redis", "redisHost", set.Redis.Addr, "redisPassword", passwordOf(set.Redis), "redisDB", database(set.Redis)),
			statetest.Features{AnyKeys: true, Missing: missingOnRedis()}},
		{"state.mysql", component("statestore", "state.mysql", "connectionString", strings.TrimSuffix(strings.Split(set.MySQL.DSN, "?")[0], set.MySQL.Database), "schemaName", set.MySQL.Database),
			statetest.Features{AnyKeys: true, Depth: 31, Missing: missingOnMySQL()}},
	}
	var names []string
	var features []statetest.Features
	for _, c := range kinds {
		names, features = append(names, "Dapr's "+c.kind), append(features, c.features)
		t.Run(c.kind, func(t *testing.T) {
			d := servers.NewDaprd(t, servers.DaprdOptions{Resources: []string{c.component}, Args: []string{"--dapr-http-max-request-size", "5"}})
			open := func(t *testing.T) state.Driver { return newDaprState(t, d.URL) }
			c.features.Reopen = func(t *testing.T, d state.Driver) state.Driver {
				require.NoError(t, d.Close())
				return open(t)
			}
			statetest.Run(t, open, c.features)
		})
	}
	if *driversPage != "" && !t.Failed() {
		writeBetween(t, *driversPage, "state", statetest.Table(append(names, "native"), append(features, statetest.Features{})))
	}
}

// newDaprState is a driver whose stores share the component statestore.
func newDaprState(t *testing.T, url string) state.Driver {
	t.Helper()
	driver, err := daprstate.New(daprstate.Config{Endpoint: url, Place: func(store string) (string, string) { return "statestore", store + ":" }})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, driver.Close()) })
	return driver
}

// writeBetween puts a table between the marks of that name in the document.
func writeBetween(t *testing.T, file, name, table string) {
	t.Helper()
	begin, end := "<!-- "+name+": begin, written by make parity -->\n", "<!-- "+name+": end -->"
	content, err := os.ReadFile(file)
	require.NoError(t, err)
	before, rest, found := strings.Cut(string(content), begin)
	_, after, ended := strings.Cut(rest, end)
	require.True(t, found && ended, "%s has no place for the table %s", file, name)
	require.NoError(t, os.WriteFile(file, []byte(before+begin+table+end+after), 0o644))
}
