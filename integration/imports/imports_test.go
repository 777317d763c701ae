package imports

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"path"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// root is the path that every module of this repository begins with.
const root = "github.com/bannou-mesh/bannou/"

// A rule says what packages below some path may import of this repository. Everything it does not allow is refused;
// the standard library and other people's modules are the modules' own business, unless the rule says so.
type rule struct {
	of     string   // packages it is about: a path below root, with everything under it
	may    []string // what they may import: paths below root; "x/..." is x and everything under it
	own    bool     // and what is below the same part of `of`: services/a/... may import services/a/...
	stdlib bool     // and of the world outside, only the standard library
	why    string
}

// The table. The most specific `of` decides.
var table = []rule{
	{of: "events", stdlib: true,
		why: "the contracts are what every program may depend on, so they depend on nothing"},

	{of: "pkg/bus", may: []string{"pkg/bus/internal/..."},
		why: "the bus is useful without the rest of Bannou, and generic over events"},
	{of: "pkg/bus/internal", may: []string{"pkg/bus/internal/..."},
		why: "internals serve the package above them, never the other way round"},
	{of: "pkg/bus/memorybus", may: []string{"pkg/bus", "pkg/bus/internal/..."},
		why: "a driver knows its library and no other driver"},
	{of: "pkg/bus/rabbitbus", may: []string{"pkg/bus", "pkg/bus/internal/..."},
		why: "a driver knows its library and no other driver"},
	{of: "pkg/bus/redisbus", may: []string{"pkg/bus", "pkg/bus/internal/..."},
		why: "a driver knows its library and no other driver"},
	{of: "pkg/bus/cloudevents", why: "the form of an envelope depends on nothing that carries it"},
	{of: "pkg/bus/daprtopics", may: []string{"pkg/bus", "pkg/bus/cloudevents", "pkg/bus/internal/..."},
		why: "topics are shared on any broker, whose driver says where they lie"},
	{of: "pkg/bus/daprbus", may: []string{"pkg/bus", "pkg/bus/cloudevents", "pkg/bus/internal/..."},
		why: "a driver over a sidecar knows its library, and Dapr by HTTP alone"},
	{of: "pkg/bus/mirror", may: []string{"pkg/bus"},
		why: "events are counted on any two brokers, so what counts them knows neither"},
	{of: "pkg/bus/bustest", may: []string{"pkg/bus"},
		why: "one suite for all drivers cannot know one of them"},

	{of: "pkg/state", may: []string{"pkg/state/internal/..."},
		why: "state is useful without the rest of Bannou"},
	{of: "pkg/state/internal", may: []string{"pkg/state", "pkg/state/internal/..."},
		why: "what the SQL engines share speaks the language of the library"},
	{of: "pkg/state/memorystate", may: []string{"pkg/state", "pkg/state/internal/..."},
		why: "a driver knows its library and no other driver"},
	{of: "pkg/state/redisstate", may: []string{"pkg/state", "pkg/state/internal/..."},
		why: "a driver knows its library and no other driver"},
	{of: "pkg/state/sqlitestate", may: []string{"pkg/state", "pkg/state/internal/..."},
		why: "a driver knows its library and no other driver"},
	{of: "pkg/state/mysqlstate", may: []string{"pkg/state", "pkg/state/internal/..."},
		why: "a driver knows its library and no other driver"},
	{of: "pkg/state/daprstate", may: []string{"pkg/state"},
		why: "a driver over a sidecar knows its library, and Dapr by HTTP alone"},
	{of: "pkg/state/statetest", may: []string{"pkg/state"},
		why: "one suite for all drivers cannot know one of them"},

	{of: "pkg/state/migrate", may: []string{"pkg/state"},
		why: "a store moves between any two engines, so what moves it knows none"},

	{of: "pkg/state/mirror", may: []string{"pkg/state", "pkg/state/migrate"},
		why: "a store is compared with any other place, so what compares knows no engine; it carries keys as a migration does"},

	{of: "pkg/state/eventstore", may: []string{"pkg/state"},
		why: "a log of events is kept by any engine, so it knows none"},
	{of: "pkg/state/eventstore/internal", may: []string{"pkg/state", "pkg/state/internal/...", "pkg/state/eventstore", "pkg/state/eventstore/internal/..."},
		why: "what engines of the event store share speaks its language"},
	{of: "pkg/state/eventstore/memoryevents", may: []string{"pkg/state", "pkg/state/eventstore", "pkg/state/eventstore/internal/..."},
		why: "an engine knows its library and no other engine"},
	{of: "pkg/state/eventstore/sqliteevents", may: []string{"pkg/state", "pkg/state/eventstore", "pkg/state/eventstore/internal/...", "pkg/state/sqlitestate"},
		why: "events are in the file of the stores, and one driver opens it"},
	{of: "pkg/state/eventstore/mysqlevents", may: []string{"pkg/state", "pkg/state/eventstore", "pkg/state/eventstore/internal/...", "pkg/state/mysqlstate"},
		why: "events are in the database of the stores, and one driver connects to it"},
	{of: "pkg/state/eventstore/eventstoretest", may: []string{"pkg/state", "pkg/state/eventstore"},
		why: "one suite for all engines cannot know one of them"},
	{of: "pkg/state/eventstore/projection", may: []string{"pkg/state", "pkg/state/eventstore"},
		why: "a projection is kept by any engine, so it knows none"},
	{of: "pkg/state/eventstore/projection/projectiontest", may: []string{"pkg/state", "pkg/state/eventstore", "pkg/state/eventstore/projection", "pkg/state/memorystate"},
		why: "one suite for all engines cannot know one of them; rows by key are in memory beside each"},

	{of: "pkg/mesh", may: []string{"pkg/mesh/internal/..."},
		why: "the mesh asks for state and a bus through small interfaces of its own"},
	{of: "pkg/mesh/internal", may: []string{"pkg/mesh/internal/..."},
		why: "internals serve the package above them, never the other way round"},
	{of: "pkg/mesh/daprmesh", may: []string{"pkg/mesh"},
		why: "a driver over a sidecar knows its library, and Dapr by HTTP alone"},
	{of: "pkg/mesh/meshtest", may: []string{"pkg/mesh"},
		why: "a test package knows its own library only"},

	{of: "sagas", may: []string{"events", "pkg/bus", "pkg/mesh", "pkg/state", "pkg/state/eventstore"},
		why: "sagas join the three libraries, and no driver: who runs them picks those"},
	{of: "sagas/sagatest", may: []string{"sagas", "pkg/bus"},
		why: "a test package knows its own library, and its events are the bus's"},

	{of: "services/problem", why: "the form of an error depends on no service"},
	{of: "services/egress", why: "what a node may reach is decided without knowing who asks"},
	{of: "services/guard", may: []string{"pkg/mesh", "services/problem"},
		why: "who may call a node is decided before any service is asked; names and the invoke endpoint are the mesh's"},
	{of: "services/jsonbody", may: []string{"services/problem"},
		why: "reading a body depends on no service"},
	{of: "services/host", may: []string{"services/problem"},
		why: "the host runs any service, so it knows none"},
	{of: "services/membership", may: []string{"events", "pkg/bus", "pkg/mesh", "pkg/state"},
		why: "membership joins the three libraries, and no driver: the node's configuration picks those"},
	{of: "services/incident", may: []string{"events", "pkg/bus", "services/host", "services/problem"},
		why: "what fails is told by host and bus, without knowing which service it was"},
	{of: "services/relay", may: []string{"pkg/bus", "pkg/state", "pkg/state/eventstore", "services/host"},
		why: "sending what waits in an outbox depends on no service, whoever put it there"},
	{of: "services/inbox", may: []string{"pkg/bus", "pkg/state"},
		why: "handling an event once depends on no service, whoever's handler it is"},
	{of: "services/registrar", may: []string{"events", "pkg/bus", "services/host"},
		why: "what endpoints require is read from documents, without knowing whose they are"},
	{of: "services/facade", may: []string{"pkg/bus", "pkg/bus/cloudevents", "pkg/mesh", "pkg/state", "services/host", "services/facade/internal/..."},
		why: "Dapr's API is served on the three libraries, and no driver: the node's configuration picks those"},
	{of: "services/facade/internal", why: "messages of Dapr's gRPC API are generated, and know nothing but their own numbers"},
	{of: "services/messaging", may: service("messaging"), why: siblings},
	{of: "services/filelock", why: "who has a file is decided without knowing what it holds"},
	{of: "services/migration", may: append(service("migration"), "services/filelock"), why: siblings},
	{of: "services/sagas", may: append(service("sagas"), "sagas"), why: siblings},
	{of: "services/gamesession", may: service("gamesession"), why: siblings},
	{of: "services/workflows", may: []string{"events", "pkg/bus", "sagas"},
		why: "what takes several services knows them by topics and paths, as they know each other"},
	{of: "services/state", may: service("state"), why: siblings},
	{of: "services/mesh", may: service("mesh"), why: siblings},
	{of: "services/permissions", may: service("permissions"), why: siblings},
	{of: "services/auth", may: service("auth"), why: siblings},
	{of: "services/connect", may: service("connect"), why: siblings},
	{of: "services/accounts", may: append(service("accounts"), "pkg/state/eventstore", "pkg/state/eventstore/projection"), why: siblings},
	{of: "services/events", may: append(service("events"), "pkg/state/eventstore", "pkg/state/eventstore/projection"), why: siblings},

	{of: "services", own: true, may: append(shared(), "services/inbox", "cmd/program"),
		why: "what `bannou new service` writes is a sibling of the others, and a program of its own"},

	{of: "cmd", may: []string{"cmd/...", "events", "sagas", "services/...",
		"pkg/bus", "pkg/bus/daprtopics", "pkg/bus/memorybus", "pkg/bus/rabbitbus", "pkg/bus/redisbus", "pkg/bus/daprbus", "pkg/bus/mirror",
		"pkg/state", "pkg/state/memorystate", "pkg/state/redisstate", "pkg/state/sqlitestate", "pkg/state/mysqlstate", "pkg/state/daprstate",
		"pkg/state/migrate", "pkg/state/mirror", "pkg/state/eventstore", "pkg/state/eventstore/memoryevents", "pkg/state/eventstore/sqliteevents",
		"pkg/state/eventstore/mysqlevents", "pkg/mesh", "pkg/mesh/daprmesh"},
		why: "the command wires everything, and is the only place that names concrete drivers"},

	{of: "integration", may: []string{"..."},
		why: "end-to-end tests may look anywhere; nobody may look at them"},
}

const siblings = "a service reaches another through the mesh or the bus, or it could never move to another node"

func service(name string) []string { return append(shared(), "services/"+name+"/...") }

// shared is what every service may import.
func shared() []string {
	return []string{"events", "pkg/bus", "pkg/mesh", "pkg/state",
		"services/host", "services/problem", "services/egress", "services/guard", "services/jsonbody", "services/membership", "services/relay"}
}

type listed struct {
	ImportPath                         string
	Imports, TestImports, XTestImports []string
}

// TestImportTable reads the imports of every package in the workspace and holds them against the table.
func TestImportTable(t *testing.T) {
	packages := list(t)
	require.Greater(t, len(packages), 20, "go list found too few packages for this test to mean anything")
	for _, p := range packages {
		of := strings.TrimPrefix(p.ImportPath, root)
		r, ok := ruleFor(of)
		if !ok {
			t.Errorf("%s has no rule in the import table: add one, with its reason", of)
			continue
		}
		for _, i := range p.Imports {
			if ours, is := strings.CutPrefix(i, root); is {
				if isTestPackage(ours) && !isTestPackage(of) && !strings.HasPrefix(of, "integration") {
					t.Errorf("%s imports %s: only tests import a test package", of, ours)
				} else if !allowed(r, of, ours) {
					t.Errorf("%s imports %s: not allowed, because %s", of, ours, r.why)
				}
			} else if r.stdlib && strings.Contains(strings.Split(i, "/")[0], ".") {
				t.Errorf("%s imports %s: only the standard library is allowed, because %s", of, i, r.why)
			}
		}
		for _, i := range append(p.TestImports, p.XTestImports...) {
			if ours, is := strings.CutPrefix(i, root); is && strings.HasPrefix(ours, "integration") && !strings.HasPrefix(of, "integration") {
				t.Errorf("the tests of %s import %s: nobody imports integration", of, ours)
			}
		}
	}
}

// TestRulesNameWhatExists keeps the table from outliving the packages it speaks of.
func TestRulesNameWhatExists(t *testing.T) {
	var all []string
	for _, p := range list(t) {
		all = append(all, strings.TrimPrefix(p.ImportPath, root))
	}
	for _, r := range table {
		found := strings.HasSuffix(r.of, "/internal")
		for _, p := range all {
			found = found || under(p, r.of)
		}
		require.True(t, found, "the import table has a rule for %s, which does not exist", r.of)
	}
}

// TestTableRefuses shows that the table can fail: each of these imports is one that design forbids.
func TestTableRefuses(t *testing.T) {
	for _, c := range []struct{ of, imports string }{
		{"events", "pkg/bus"},
		{"pkg/bus", "events"},
		{"pkg/bus", "pkg/state"},
		{"pkg/bus/rabbitbus", "pkg/bus/memorybus"},
		{"pkg/state", "pkg/state/mysqlstate"},
		{"pkg/state/statetest", "pkg/state/memorystate"},
		{"pkg/state/eventstore", "pkg/state/mysqlstate"},
		{"pkg/state/eventstore/mysqlevents", "pkg/state/sqlitestate"},
		{"pkg/mesh", "pkg/bus"},
		{"services/state", "services/messaging"},
		{"services/state", "pkg/state/redisstate"},
		{"services/events", "pkg/state/eventstore/mysqlevents"},
		{"services/host", "services/mesh"},
		{"services/leaderboard", "services/accounts"},
		{"services/leaderboard", "pkg/state/mysqlstate"},
		{"services/leaderboard/cmd/leaderboard", "cmd/internal/node"},
		{"cmd/bannou", "integration/servers"},
		{"cmd/bannou", "pkg/bus/bustest"},
	} {
		r, ok := ruleFor(c.of)
		require.True(t, ok, c.of)
		require.False(t, allowed(r, c.of, c.imports), "%s may import %s", c.of, c.imports)
	}
}

func ruleFor(p string) (best rule, found bool) {
	for _, r := range table {
		if under(p, r.of) && (!found || len(r.of) > len(best.of)) {
			best, found = r, true
		}
	}
	return best, found
}

func allowed(r rule, of, imported string) bool {
	if part, _, _ := strings.Cut(strings.TrimPrefix(of, r.of+"/"), "/"); r.own && under(imported, r.of+"/"+part) {
		return true
	}
	for _, m := range r.may {
		below, all := strings.CutSuffix(m, "...")
		if m == imported || m == "..." || all && under(imported, strings.TrimSuffix(below, "/")) {
			return true
		}
	}
	return false
}

func under(p, dir string) bool { return p == dir || strings.HasPrefix(p, dir+"/") }

func isTestPackage(p string) bool { return strings.HasSuffix(path.Base(p), "test") }

func list(t *testing.T) []listed {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Imports,TestImports,XTestImports", root+"...")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	require.NoError(t, err, "go list: %s", &stderr)
	var packages []listed
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listed
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return packages
		} else if err != nil {
			t.Fatal(err)
		}
		packages = append(packages, p)
	}
}
