package migration

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/bannou-mesh/bannou/services/filelock"
)

// The ways of a block.
const (
	Native = "native"
	Dapr   = "dapr"
)

// The kinds of items, and the blocks that they are of.
const (
	KindStore   = "store"
	KindService = "service"
	KindTopic   = "topic"

	BlockState     = "state"
	BlockMessaging = "messaging"
	BlockMesh      = "mesh"
)

// A Decision is the way that was decided for one item.
type Decision struct {
	Kind   string    `json:"kind"`
	Name   string    `json:"name"`
	Block  string    `json:"block"`
	To     string    `json:"to"`
	From   string    `json:"from"` // the way before, which a rollback goes to
	At     time.Time `json:"at"`
	Forced bool      `json:"forced,omitempty"`
	// Told is set when a node that runs by it has told of it.
	Told bool `json:"told,omitempty"`
}

func (d *Decision) of(kind, name, block string) bool {
	return d.Kind == kind && d.Name == name && d.Block == block
}

func (d *Decision) check() error {
	blocks := map[string][]string{KindStore: {BlockState}, KindService: {BlockMessaging, BlockMesh}, KindTopic: {BlockMessaging}}
	switch {
	case d.Name == "":
		return errors.New("a decision names nothing")
	case !slices.Contains(blocks[d.Kind], d.Block):
		return fmt.Errorf("the decision about %q is of the kind %q and the block %q, which do not go together", d.Name, d.Kind, d.Block)
	case !slices.Contains([]string{Native, Dapr}, d.To):
		return fmt.Errorf("the decision about the %s %q says %q: it is native or dapr", d.Kind, d.Name, d.To)
	default:
		return nil
	}
}

// document is the content of the file.
type document struct {
	Version   int        `json:"version"`
	Decisions []Decision `json:"decisions"`
}

// fileVersion is the form of the file that this program writes, and the only one that it reads.
const fileVersion = 1

// A File keeps decisions. It is safe for concurrent use, also by several processes of one machine: who writes holds a lock on a file beside
// it (PATH.lock), where the system has such locks.
type File struct {
	path string
	mu   sync.Mutex
}

// OpenFile names a file, which need not exist.
func OpenFile(path string) *File { return &File{path: path} }

// Path is where it is.
func (f *File) Path() string { return f.path }

// Read gives the decisions, none where there is no file. One that is damaged, or of another version, is an error: a node does not start
// by half of what was decided.
func (f *File) Read() ([]Decision, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.read()
}

func (f *File) read() ([]Decision, error) {
	content, err := os.ReadFile(f.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("the decisions of `bannou migrate` cannot be read: %w", err)
	}
	var d document
	if err := json.Unmarshal(content, &d); err != nil {
		return nil, fmt.Errorf("%s is damaged: it holds the decisions of `bannou migrate`; mend it, or delete it to decide anew: %w", f.path, err)
	}
	if d.Version != fileVersion {
		return nil, fmt.Errorf("%s is of version %d, and this program reads version %d", f.path, d.Version, fileVersion)
	}
	for i := range d.Decisions {
		if err := d.Decisions[i].check(); err != nil {
			return nil, fmt.Errorf("%s: %w", f.path, err)
		}
	}
	return d.Decisions, nil
}

// Put enters decisions, each in the place of an earlier one about its item. They are on the disk when it returns.
func (f *File) Put(made ...Decision) error {
	return f.update(func(all []Decision) ([]Decision, error) { return entered(all, made) })
}

// MarkTold enters that a decision was told, unless there is another one about its item meanwhile.
func (f *File) MarkTold(d Decision) error {
	return f.update(func(all []Decision) ([]Decision, error) {
		for i := range all {
			if now := &all[i]; now.of(d.Kind, d.Name, d.Block) && now.At.Equal(d.At) && !now.Told {
				now.Told = true
				return all, nil
			}
		}
		return nil, nil
	})
}

// entered are decisions with others in the places of those about the same items.
func entered(all, made []Decision) ([]Decision, error) {
	for _, d := range made {
		if err := d.check(); err != nil {
			return nil, err
		}
		all = slices.DeleteFunc(all, func(old Decision) bool { return old.of(d.Kind, d.Name, d.Block) })
		all = append(all, d)
	}
	return all, nil
}

// update writes what change makes of the decisions as they are; nil leaves them. Nobody else writes meanwhile.
func (f *File) update(change func(all []Decision) ([]Decision, error)) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	release, err := f.claim()
	if err != nil {
		return err
	}
	defer release()
	all, err := f.read()
	if err != nil {
		return err
	}
	if all, err = change(all); err != nil || all == nil {
		return err
	}
	return f.write(all)
}

// How long somebody else who writes is waited for, and how often one looks.
const (
	mostWait  = 5 * time.Second
	lookAgain = 5 * time.Millisecond
)

// claim keeps other processes from writing between the reading and the writing of this one, until release.
func (f *File) claim() (release func(), err error) {
	if err := os.MkdirAll(filepath.Dir(f.path), 0o755); err != nil { //nolint:gosec // as the data folder is made
		return nil, fmt.Errorf("the decision cannot be kept: %w", err)
	}
	beside, err := os.OpenFile(f.path+".lock", os.O_CREATE|os.O_RDWR, 0o644) //nolint:gosec // as the file itself, which others may share
	if err != nil {
		return nil, fmt.Errorf("the decision cannot be kept: %w", err)
	}
	for until := time.Now().Add(mostWait); ; <-time.After(lookAgain) {
		if err := filelock.Lock(beside); !errors.Is(err, filelock.ErrTaken) { // a file system without locks keeps nobody from writing
			return func() { _ = beside.Close() }, nil
		}
		if time.Now().After(until) {
			return nil, errors.Join(fmt.Errorf("the decision cannot be kept: another process has been writing %s for %s", f.path, mostWait), beside.Close())
		}
	}
}

// write replaces the file as a whole.
func (f *File) write(all []Decision) (err error) {
	content, err := json.MarshalIndent(document{fileVersion, all}, "", "  ")
	if err != nil {
		return err
	}
	folder := filepath.Dir(f.path)
	temporary, err := os.CreateTemp(folder, filepath.Base(f.path)+".*")
	if err != nil {
		return fmt.Errorf("the decision cannot be kept: %w", err)
	}
	defer func() {
		if err != nil {
			_ = os.Remove(temporary.Name())
		}
	}()
	_, err = temporary.Write(append(content, '\n'))
	if err = errors.Join(err, temporary.Chmod(0o644), temporary.Sync(), temporary.Close()); err != nil {
		return fmt.Errorf("the decision cannot be kept: %w", err)
	}
	if err = os.Rename(temporary.Name(), f.path); err != nil {
		return fmt.Errorf("the decision cannot be kept: %w", err)
	}
	if d, err := os.Open(folder); err == nil { // so that the name is on the disk too
		_ = d.Sync()
		_ = d.Close()
	}
	return nil
}
