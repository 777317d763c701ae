package faults_test

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/integration/faults"
)

// apartVariable holds the file to which a run of this binary for one test writes its rows.
const apartVariable = "BANNOU_FAULTS_APART"

// apartRows are those of the tests that ran apart.
var apartRows struct {
	sync.Mutex
	rows faults.Rows
}

// apart runs the body of the test that calls it in another process, this binary once more with these flags of clone(2): a test that runs
// beside another does not meet the goroutines that the other counts.
func apart(t *testing.T, flags uintptr, body func(t *testing.T)) {
	if file := os.Getenv(apartVariable); file != "" {
		defer func() { // also what has failed is told
			written, err := json.Marshal(rows)
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(file, written, 0o600))
		}()
		body(t)
		return
	}
	self, err := os.Executable()
	require.NoError(t, err)
	file := filepath.Join(t.TempDir(), "rows")
	// A context that ends would cost a goroutine, and TestMesh would count it.
	run := exec.CommandContext(context.Background(), self, "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout="+(10*patience).String(), "-seed="+strconv.FormatUint(*seed, 10), "-long="+strconv.FormatBool(*long))
	run.Env = append(os.Environ(), apartVariable+"="+file)
	run.SysProcAttr = &syscall.SysProcAttr{Cloneflags: flags, Pdeathsig: syscall.SIGKILL}
	said, err := run.CombinedOutput()
	if errors.Is(err, syscall.EPERM) {
		t.Skipf("this system allows no network namespaces: %v", err)
	}
	t.Logf("%s", said)
	if written, err := os.ReadFile(file); err == nil {
		var its faults.Rows
		require.NoError(t, json.Unmarshal(written, &its))
		apartRows.Lock()
		defer apartRows.Unlock()
		apartRows.rows.Add(its)
	}
	require.NoError(t, err)
}
