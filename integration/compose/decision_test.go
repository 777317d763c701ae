package compose

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// A program stands in for one of the machine's.
type program struct{ name, script string }

// engineless is a machine on Linux, for root, on which no Docker engine answers and every program that an engine of its own is started with
// works. Nothing is installed, and nothing enters another namespace.
var engineless = []program{
	{"docker", `[ "$1" = version ] && [ -e "$TMPDIR/up" ]`},
	{"dockerd", `: >"$TMPDIR/up"; exec sleep 60`},
	{"id", `echo 0`},
	{"uname", `echo Linux`},
	{"ip", `:`},
	{"iptables", `:`},
	{"mount", `:`},
	{"mkdir", `case $1 in /sys/*) ;; *) exec /bin/mkdir "$@" ;; esac`},
	{"rmdir", `:`},
	{"unshare", `while case $1 in --mount-proc | --*) ;; *) false ;; esac; do shift; done; exec "$@"`},
	{"timeout", `shift 2; case $1 in */install-compose | */rootfs) ;; sh) echo "it does not compile"; exit 7 ;; *) exec "$@" ;; esac`},
}

// The suite in containers is left out where the machine does not let an engine run, in a sentence that says why. Whatever else goes wrong
// fails it: a check that skips itself for any reason would never be missed.
func TestWhoCannotRunContainersIsTold(t *testing.T) {
	for name, c := range map[string]struct {
		machine program
		skips   bool
		says    string
	}{
		"not root":               {program{"id", `echo 1000`}, true, "to start one needs root on Linux"},
		"another system":         {program{"uname", `echo Darwin`}, true, "to start one needs root on Linux"},
		"no namespaces":          {program{"unshare", `echo "unshare failed: Operation not permitted" >&2; exit 1`}, true, "making namespaces is refused: unshare failed: Operation not permitted"},
		"no cgroups":             {program{"mkdir", `case $1 in /sys/*) echo "Read-only file system" >&2; exit 1 ;; *) exec /bin/mkdir "$@" ;; esac`}, true, "making a cgroup is refused: Read-only file system"},
		"no bridges":             {program{"ip", `case $* in *bridge*) echo "Unknown device type" >&2; exit 2 ;; esac`}, true, "making a bridge is refused: Unknown device type"},
		"no rules of iptables":   {program{"iptables", `echo "Permission denied (you must be root)" >&2; exit 4`}, true, "changing rules of iptables is refused"},
		"the engine ends":        {program{"dockerd", `echo "failed to start daemon: Devices cgroup is not mounted" >&2; exit 1`}, true, "does not come up here: engine: the engine ended: failed to start daemon: Devices cgroup is not mounted"},
		"a script of ours fails": {program{"rmdir", `echo "rmdir: what is that" >&2; exit 3`}, false, "what is that"},
		"the build fails":        {program{"true", ``}, false, "it does not compile"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			programs, skipped := t.TempDir(), filepath.Join(t.TempDir(), "skipped")
			for _, p := range append(engineless, c.machine) {
				require.NoError(t, os.WriteFile(filepath.Join(programs, p.name), []byte("#!/bin/sh\n"+p.script+"\n"), 0o700))
			}
			cmd := exec.CommandContext(t.Context(), "../../compose/test")
			cmd.Env = append(os.Environ(), "PATH="+programs+":"+os.Getenv("PATH"), "TMPDIR="+t.TempDir(), "BANNOU_TEST_SKIPPED="+skipped, "BANNOU_COMPOSE_OFFLINE=")
			out, err := cmd.CombinedOutput()
			require.Contains(t, string(out), c.says)
			if !c.skips {
				require.Error(t, err, "%s", out)
				require.NotContains(t, string(out), "SKIPPED")
				require.NoFileExists(t, skipped)
				return
			}
			require.NoError(t, err, "%s", out)
			require.Contains(t, string(out), "=== SKIPPED: the suite was not run in containers, because ")
			kept, err := os.ReadFile(skipped)
			require.NoError(t, err)
			require.Contains(t, string(kept), c.says)
		})
	}
}
