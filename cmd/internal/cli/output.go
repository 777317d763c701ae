package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
)

// outputFlag lets a command print for people or for programs.
type outputFlag struct {
	Output string `short:"o" default:"table" enum:"table,json" help:"Form of the output: table or json."`
}

// print writes v as JSON, or what human does as a table.
func (f outputFlag) print(std *stdio, v any, human func(*table)) error {
	if f.Output == "json" {
		return printJSON(std.out, v)
	}
	var t table
	human(&t)
	return t.write(std.out)
}

func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// table collects rows, whose columns print aligned.
type table struct{ text strings.Builder }

func (t *table) row(cells ...any) {
	for i, c := range cells {
		if i > 0 {
			t.text.WriteByte('\t')
		}
		t.text.WriteString(printable(fmt.Sprint(c)))
	}
	t.text.WriteByte('\n')
}

// write writes the rows with their columns aligned.
func (t *table) write(w io.Writer) error {
	tabs := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	if _, err := io.WriteString(tabs, t.text.String()); err != nil {
		return err
	}
	return tabs.Flush()
}

func (t *table) line(s string) { t.text.WriteString(s + "\n") }

// printable keeps what others put into names and events from moving the cursor of the terminal it is shown on.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return '\ufffd'
		}
		return r
	}, s)
}

// compact is a JSON value on one line, every number as it was written.
func compact(raw []byte) string {
	var b bytes.Buffer
	if json.Compact(&b, raw) != nil {
		return string(raw)
	}
	return b.String()
}

// ago is a moment as people say it.
func ago(at, now time.Time) string {
	if at.IsZero() {
		return "never"
	}
	return max(now.Sub(at), 0).Round(time.Second).String() + " ago"
}
