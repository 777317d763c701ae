package faults

import "fmt"

// A RebuildRow is what the page says of one fault while a projection is rebuilt.
type RebuildRow struct {
	Fault     string
	Times     int   // in the middle of the rebuild, each of them
	Events    int64 // that there are in the end
	Meanwhile int64 // of them, appended while it was rebuilt
	Back      int   // times that the new version was found further back than a batch or two: it was begun anew
	Rows      int   // of the rebuilt projection
	Differing int   // rows that are not the live version's, byte by byte
	Wrong     int   // rows that are not what the events come to
	Seed      uint64
	Failed    bool
}

// String is the row in Markdown.
func (r RebuildRow) String() string {
	name := r.Fault
	if r.Failed {
		name += " (FAILED)"
	}
	return fmt.Sprintf("| %s | %d | %d | %d | %d | %d | %d | %d | %d |", name, r.Times, r.Events, r.Meanwhile, r.Back, r.Rows, r.Differing, r.Wrong, r.Seed)
}

const rebuildTitle = "\n## Rebuilding a projection\n\n"

const rebuildHeading = `Each line is a projection in tables of MariaDB that is rebuilt, and harmed so many times before it is done, while four writers append: two
processes follow the live version, and one of them builds the next one. Each row is a count and a digest of a stream's events, which is another one when an event is left out,
comes twice, or comes out of order. In the end the rebuilt version is live, and is held against the one before and against the log. The run fails when a row differs, or when a
rebuild begins anew.

| fault | times | events | appended meanwhile | begun anew | rows | not as the live version has them | not as the log has them | seed |
| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |
`
