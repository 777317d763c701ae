package dapr_test

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var (
	benchOut    = flag.String("bench-out", "", "document that this run writes the figures into")                                                                       // a flag
	benchRounds = flag.Int("bench-rounds", 1, "how often each measurement is made; a median needs at least 3")                                                         // a flag
	benchLength = flag.Duration("bench-length", 20*time.Millisecond, "length of each measurement")                                                                     // a flag
	benchWorks  = flag.String("bench-works", "invoke,publish,end to end,get,save", "what is measured, of those and rest (memory, starts, bytes), with commas between") // a flag
)

// ways are the three that do the same work.
var ways = []string{"dapr", "facade", "native"}

// A work is one that all ways do. An operation is one call of do.
type work struct {
	name    string
	callers []int
	do      map[string]func(caller, number int) error
	bars    map[string]map[int]float64 // how many times as fast as Dapr a way is to be, by callers

	exchanges float64 // over HTTP that the facade's way has at least, beside what the libraries' has; 0: there is no saying
}

// The work of an API that does nothing: the other rows of a sidecar and of a node cannot be faster.
const healthWork = "healthz"

// TestBench does the same work through Dapr, the facade and the native libraries, in turn in the same run. Its short form shows that the benchmark
// runs; 'make bench-dapr' measures, and writes docs/benchmarks-dapr.md.
func TestBench(t *testing.T) {
	b := newBench(t)
	var page strings.Builder
	health := map[int]float64{} // of the facade, by callers
	for _, w := range b.works() {
		if w.name != healthWork && !strings.Contains(","+*benchWorks+",", ","+w.name+",") {
			continue
		}
		for _, callers := range w.callers {
			rates := map[string][]float64{}
			for range *benchRounds {
				for _, way := range ways {
					if w.do[way] == nil {
						continue
					}
					rate, err := rateOf(w.do[way], callers, *benchLength)
					require.NoError(t, err, "%s over %s", w.name, way)
					b.wires.close() // a server may end those that nobody uses
					rates[way] = append(rates[way], rate)
				}
			}
			if w.name == healthWork {
				health[callers] = middle(rates["facade"])
			}
			row(&page, w, callers, rates, health[callers])
		}
	}
	rest := ""
	if strings.Contains(*benchWorks, "rest") {
		rest = b.rest()
	}
	t.Logf("\n%s%s", page.String(), rest)
	if *benchOut != "" {
		require.GreaterOrEqual(t, *benchRounds, 3, "a median needs at least 3 rounds")
		writeFigures(t, *benchOut, *benchWorks, page.String(), rest)
	}
}

// rateOf is how many operations a second so many callers make.
func rateOf(do func(caller, number int) error, callers int, length time.Duration) (float64, error) {
	if err := do(0, -1); err != nil { // connections, and what is made at first use
		return 0, err
	}
	var wait sync.WaitGroup
	counts, errs := make([]int, callers), make([]error, callers)
	begin := time.Now()
	for caller := range callers {
		wait.Go(func() {
			for errs[caller] == nil && (time.Since(begin) < length || counts[caller] == 0) {
				if errs[caller] = do(caller, counts[caller]); errs[caller] == nil {
					counts[caller]++
				}
			}
		})
	}
	wait.Wait()
	took := time.Since(begin)
	total := 0
	for caller := range callers {
		if errs[caller] != nil {
			return 0, errs[caller]
		}
		total += counts[caller]
	}
	return float64(total) / took.Seconds(), nil
}

func middle(of []float64) float64 {
	sorted := slices.Sorted(slices.Values(of))
	return sorted[len(sorted)/2]
}

// row is a line of the table of rates. health is how many exchanges that do nothing the facade has with so many callers.
func row(page *strings.Builder, w work, callers int, rates map[string][]float64, health float64) {
	dapr := middle(rates["dapr"])
	fmt.Fprintf(page, "| %s | %d | %.0f | %.0f |", w.name, callers, dapr, middle(rates["facade"]))
	native := rates["native"] != nil
	if native {
		fmt.Fprintf(page, " %.0f |", middle(rates["native"]))
	} else {
		page.WriteString(" |")
	}
	for _, way := range []string{"facade", "native"} {
		if rates[way] == nil {
			page.WriteString(" |")
			continue
		}
		ratio, bar := middle(rates[way])/dapr, w.bars[way][callers]
		verdict := ""
		if bar > 0 {
			verdict = fmt.Sprintf(" of %.0f", bar)
		}
		if ratio < bar {
			verdict += ", missed"
		}
		fmt.Fprintf(page, " %.1f%s |", ratio, verdict)
	}
	if native && w.exchanges > 0 {
		fmt.Fprintf(page, " %.1f |", 1/(w.exchanges/health+1/middle(rates["native"]))/dapr)
	} else {
		page.WriteString(" |")
	}
	page.WriteString("\n")
}

// writeFigures puts the figures between their marks in the document: a run of some works writes those, and leaves the others.
func writeFigures(t *testing.T, file, names, rows, rest string) {
	t.Helper()
	content, err := os.ReadFile(file)
	require.NoError(t, err)
	text := string(content)
	for line := range strings.Lines(rows) {
		key := strings.Join(strings.Split(line, " | ")[:2], " | ") + " |"
		end := "<!-- rows: end -->\n"
		if at := strings.Index(text, key); at >= 0 {
			text = text[:at] + line + text[at+strings.Index(text[at:], "\n")+1:]
			continue
		}
		require.Contains(t, text, end, "%s has no place for the row %s", file, key)
		text = strings.Replace(text, end, line+end, 1)
	}
	if rest != "" {
		const begin, end = "<!-- rest: begin -->\n", "<!-- rest: end -->"
		before, after, found := strings.Cut(text, begin)
		_, after, ended := strings.Cut(after, end)
		require.True(t, found && ended, "%s has no place for memory, starts and bytes", file)
		text = before + begin + rest + end + after
	}
	require.NoError(t, os.WriteFile(file, []byte(text), 0o644))
	t.Logf("wrote %s into %s", names, file)
}

// resident is the memory that a process holds, in MiB, found by an argument that it alone has.
func resident(t *testing.T, argument string) float64 {
	t.Helper()
	folders, err := os.ReadDir("/proc")
	require.NoError(t, err)
	for _, folder := range folders {
		if _, err := strconv.Atoi(folder.Name()); err != nil {
			continue
		}
		line, err := os.ReadFile("/proc/" + folder.Name() + "/cmdline")
		if err != nil || !slices.Contains(strings.Split(string(line), "\x00"), argument) {
			continue
		}
		status, err := os.ReadFile("/proc/" + folder.Name() + "/status")
		require.NoError(t, err)
		for line := range strings.Lines(string(status)) {
			if fields := strings.Fields(line); len(fields) == 3 && fields[0] == "VmRSS:" {
				kib, err := strconv.ParseFloat(fields[1], 64)
				require.NoError(t, err)
				return kib / 1024
			}
		}
	}
	t.Fatalf("no process has the argument %s", argument)
	return 0
}
