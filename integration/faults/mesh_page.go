package faults

import "fmt"

// A MeshRow is what the page says of one fault of the mesh.
type MeshRow struct {
	Fault, Bus string
	Times      int // how often it was done
	MeshTotals
	Goroutines  int // left in the caller's process and in those of instances
	Connections int // left open by the caller, or open at instances
	Seed        uint64
	Failing     bool
}

// String is the row in Markdown.
func (r MeshRow) String() string {
	name := r.Fault
	if r.Failing {
		name += " (FAILED)"
	}
	return fmt.Sprintf("| %s | %s | %d | %d | %d | %d | %d | %d | %d | %d | %d | %d | %d | %d | %d |", name, r.Bus, r.Times, r.Calls, r.Succeeded, r.Failed,
		r.Wrong, r.Retried, r.GivenUp, r.OnceFailed, r.Twice, r.Late, r.Goroutines, r.Connections, r.Seed)
}

const meshTitle = "\n## Mesh\n\n"

const meshHeading = `Written on %s. Each line is a mesh under load whose instances or servers are harmed so many times: five instances of two
app-ids, each a process of its own that serves and registers as a node does, with the registry in one Redis and the bus in another, or in
RabbitMQ; %d callers of one client, each with one call at a time, to services by their mapping and to app-ids by name. Of ten calls six are
reads, two are posts with an idempotency key, and two are posts without one. One of twenty has a deadline of 10 to 50 ms, the others %s.
The client's policy is the default one, but that an attempt may take %s, that 500 is worth another one, and that ejections are shorter.
The run fails when a call fails that may be repeated and had time, when a call reaches the wrong app-id, when a post without a key reaches
instances twice, when a call returns later than %s after its deadline (without the time in which its process did not run), or when a goroutine or a connection is left in the caller or an
instance.

| fault | bus | times | calls | succeeded | failed | wrong target | retried | given up | posts failed | posts twice | late | goroutines left | connections left | seed |
| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |
`

const meshFootnotes = `
*failed* are reads, and posts with a key. *wrong target*: who answered is another app-id than the mappings said, in each version that the
caller's directory had from the call's begin to its end; or the answer was another call's; or the directory went back to an older
version, or had one that was not as it was set. *retried* counts attempts after the first. *given up* are calls with a deadline of
milliseconds that were not answered, and those that the caller cancelled. *posts failed* have no key: they are not repeated once they may
have arrived. Instances are cut off, and packets lost, in network namespaces.
`
