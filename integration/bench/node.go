package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// settle is how long a node is left alone before its memory is read.
const settle = 3 * time.Second

type nodeFigures struct {
	ready  time.Duration // median, from the start of the process to 200 from /readyz
	worst  time.Duration
	memory float64 // resident, MiB, median
	binary float64 // MiB
	runs   int
}

// measureNode starts the embedded node several times, with its data from the run before.
func measureNode(ctx context.Context, root string, runs int) (nodeFigures, error) {
	binary, err := filepath.Abs(filepath.Join(root, "bin", "bannou"))
	if err != nil {
		return nodeFigures{}, err
	}
	info, err := os.Stat(binary)
	if err != nil {
		return nodeFigures{}, fmt.Errorf("run `make build` first: %w", err)
	}
	folder, err := os.MkdirTemp("", "bannou-bench-")
	if err != nil {
		return nodeFigures{}, err
	}
	defer func() { _ = os.RemoveAll(folder) }()
	figures := nodeFigures{runs: runs, binary: float64(info.Size()) / (1 << 20)}
	var starts []time.Duration
	var memories []float64
	for i := range runs {
		fmt.Fprintf(os.Stderr, "bench: start-up, run %d of %d\n", i+1, runs)
		start, memory, err := measureStart(ctx, binary, folder)
		if err != nil {
			return figures, err
		}
		starts, memories = append(starts, start), append(memories, memory)
		figures.worst = max(figures.worst, start)
	}
	figures.ready = median(starts, func(d time.Duration) time.Duration { return d })
	figures.memory = median(memories, func(m float64) float64 { return m })
	return figures, nil
}

func measureStart(ctx context.Context, binary, folder string) (ready time.Duration, memory float64, err error) {
	address, err := freeAddress(ctx)
	if err != nil {
		return 0, 0, err
	}
	cmd := exec.CommandContext(ctx, binary, "serve", "--listen", address, "--data-dir", filepath.Join(folder, "data"), "--log-level", "error") //nolint:gosec // what make build made
	cmd.Stderr = os.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	begin := time.Now()
	if err := cmd.Start(); err != nil {
		return 0, 0, err
	}
	defer func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait() // its exit code was not asked for
	}()
	for ready = 0; ready == 0; {
		if isReady(ctx, address) {
			ready = time.Since(begin)
		} else if time.Since(begin) > 30*time.Second {
			return 0, 0, fmt.Errorf("the node was not ready in 30 s")
		}
	}
	select {
	case <-ctx.Done():
		return 0, 0, ctx.Err()
	case <-time.After(settle):
	}
	memory, err = resident(cmd.Process.Pid)
	return ready, memory, err
}

func isReady(ctx context.Context, address string) bool {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/readyz", nil)
	if err != nil {
		return false
	}
	res, err := http.DefaultClient.Do(request)
	if err != nil {
		return false
	}
	defer res.Body.Close()
	_, err = io.Copy(io.Discard, res.Body)
	return err == nil && res.StatusCode == http.StatusOK
}

func freeAddress(ctx context.Context) (string, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// resident is the memory that a process holds, in MiB.
func resident(pid int) (float64, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(status)) {
		if fields := strings.Fields(line); len(fields) == 3 && fields[0] == "VmRSS:" {
			kib, err := strconv.ParseFloat(fields[1], 64)
			return kib / 1024, err
		}
	}
	return 0, fmt.Errorf("process %d: no VmRSS", pid)
}

func (f nodeFigures) write(page *strings.Builder) {
	fmt.Fprintf(page, `## The embedded node

All services in one process, with data from an earlier run; medians of %d starts.

| figure | measured |
| --- | ---: |
| start of the process to ready | %d ms (slowest %d ms) |
| resident memory, idle | %.1f MiB |
| binary | %.1f MiB |

`, f.runs, f.ready.Milliseconds(), f.worst.Milliseconds(), f.memory, f.binary)
}
