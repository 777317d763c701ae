package sagas

import (
	"fmt"
	"html"
	"slices"
	"strings"
)

// The layout: states stand in a column in the order of the definition, each with what it does. What goes to the next one goes down; what goes
// elsewhere goes round the left. Compensation is a column at the right, in which what is undone is read from below, as it is done.
const (
	boxWidth, boxHeight = 210, 46
	rowHeight           = 96
	margin              = 24
	charWidth           = 6.3 // of the small letters, about
	laneWidth           = 26  // between arcs at the left
	barWidth            = 190
)

type drawing struct {
	text     strings.Builder
	d        Diagram
	edges    []edge
	left     float64 // where the boxes begin
	bar      float64 // where compensation begins
	row      map[string]int
	top      float64 // of the first row
	width    float64
	height   float64
	arcLanes int
}

// SVG is the diagram as a picture of its own: an svg element without script or links.
func (d Diagram) SVG() string {
	g := &drawing{d: d, edges: d.edges(), row: map[string]int{}, top: 78}
	for n, st := range d.saga.states {
		g.row[st.name] = n
	}
	g.measure()
	g.say(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %.0f %.0f" width="%.0f" height="%.0f" font-family="sans-serif" font-size="11" role="img">`, g.width, g.height, g.width, g.height)
	g.say(`<title>%s</title>`, html.EscapeString(d.title()))
	g.say(`<defs><marker id="arrow" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" orient="auto"><path d="M0 0 10 5 0 10z" fill="#445"/></marker></defs>`)
	g.say(`<rect width="100%%" height="100%%" fill="#fff"/>`)
	g.say(`<text x="%d" y="26" font-size="15" font-weight="bold" fill="#223">%s</text>`, margin, html.EscapeString(d.title()))
	if compensates(g.edges) {
		g.compensation()
	}
	g.start()
	for _, e := range g.edges {
		g.edge(e)
	}
	for _, st := range d.saga.states {
		g.state(st)
	}
	g.say(`</svg>`)
	return g.text.String()
}

func (d Diagram) title() string {
	title := fmt.Sprintf("%s, version %d", d.saga.name, d.saga.version)
	if d.now != nil {
		title += fmt.Sprintf(": %s is %s", d.now.Key, d.now.Status)
		if d.now.Parked != nil {
			title += ": " + d.now.Parked.Reason
		}
	}
	const most = 110
	if r := []rune(title); len(r) > most {
		title = string(r[:most-1]) + "…"
	}
	return title
}

func (g *drawing) say(format string, args ...any) { fmt.Fprintf(&g.text, format+"\n", args...) }

// measure says where things stand.
func (g *drawing) measure() {
	arcs, arcLabels, barLabels := 0, 0.0, 0.0
	for _, e := range g.edges {
		switch {
		case e.to == Compensating:
			barLabels = max(barLabels, widest(e.labels))
		case !g.straight(e):
			arcs++
			arcLabels = max(arcLabels, widest(e.labels))
		default: // its label stands at the right of the line in the middle of the box
			barLabels = max(barLabels, widest(e.labels)-boxWidth/2+10)
		}
	}
	g.left = margin
	if arcs > 0 {
		g.left += arcLabels + float64(arcs+1)*laneWidth
	}
	g.bar = g.left + boxWidth + barLabels + 50
	g.width = g.bar + margin
	if compensates(g.edges) {
		g.width += barWidth
	}
	g.width = max(g.width, float64(len([]rune(g.d.title())))*8.4+2*margin)
	g.height = g.top + float64(len(g.d.saga.states)-1)*rowHeight + boxHeight + 1.5*margin
}

func widest(labels []string) (width float64) {
	for _, l := range labels {
		width = max(width, float64(len(l))*charWidth)
	}
	return width
}

// straight reports an edge that goes down to the next row.
func (g *drawing) straight(e edge) bool {
	if e.from == "" {
		return g.row[e.to] == 0
	}
	return g.row[e.to] == g.row[e.from]+1
}

func (g *drawing) y(state string) float64 { return g.top + float64(g.row[state])*rowHeight }

func (g *drawing) start() {
	g.say(`<circle cx="%.0f" cy="%.0f" r="6" fill="#445"/>`, g.left+boxWidth/2, g.top-38)
}

// edge draws what leads from one state to another one.
func (g *drawing) edge(e edge) {
	middle := g.left + boxWidth/2
	fromY := g.top - 32
	if e.from != "" {
		fromY = g.y(e.from) + boxHeight
	}
	switch {
	case e.to == Compensating:
		y := g.y(e.from) + boxHeight/2
		g.line("#b03a2e", "M%.0f %.0fH%.0f", g.left+boxWidth, y, g.bar-2)
		for n, l := range e.labels {
			g.label(g.left+boxWidth+10, y-5+float64(n-len(e.labels)+1)*12, "start", l)
		}
	case g.straight(e):
		toY := g.y(e.to) - 2
		g.line("#445", "M%.0f %.0fV%.0f", middle, fromY, toY)
		y := (fromY+toY)/2 + 3 - float64(len(e.labels)-1)*6
		for n, l := range e.labels {
			g.label(middle+8, y+float64(n)*12, "start", l)
		}
	default:
		g.arcLanes++
		x := g.left - float64(g.arcLanes)*laneWidth
		fromX, toX, toY := g.left, g.left-2, g.y(e.to)+boxHeight/2
		switch e.from {
		case "":
			fromX, fromY = middle-6, g.top-38
		case e.to:
			fromY, toY = g.y(e.from)+boxHeight/4, g.y(e.from)+3*boxHeight/4
		default:
			fromY = g.y(e.from) + boxHeight/2 + 8
		}
		g.line("#445", "M%.0f %.0fC%.0f %.0f %.0f %.0f %.0f %.0f", fromX, fromY, x, fromY, x, toY, toX, toY)
		// Labels stand nearer to where the edge begins, so that those of two that lead to and fro do not meet.
		const t = 0.3
		labelX := (1-t)*(1-t)*(1-t)*fromX + 3*(1-t)*t*x + t*t*t*toX
		y := (1-t)*(1-t)*(1+2*t)*fromY + t*t*(3-2*t)*toY + 3 - float64(len(e.labels)-1)*6
		for n, l := range e.labels {
			g.label(labelX-5, y+float64(n)*12, "end", l)
		}
	}
}

func (g *drawing) line(colour, path string, args ...any) {
	g.say(`<path d="`+path+`" fill="none" stroke="%s" stroke-width="1.4" marker-end="url(#arrow)"/>`, append(args, colour)...)
}

func (g *drawing) label(x, y float64, anchor, text string) {
	g.say(`<text x="%.0f" y="%.0f" text-anchor="%s" fill="#445" stroke="#fff" stroke-width="3" paint-order="stroke">%s</text>`, x, y, anchor, html.EscapeString(text))
}

// colours are those of a box, which may be the present one.
func (g *drawing) colours(name, fill string) (string, string, float64) {
	state, status := g.d.present()
	switch {
	case state != name:
		return fill, "#667", 1.2
	case status == Parked:
		return "#ffc9c0", "#c0392b", 3
	default:
		return "#ffe08a", "#b8860b", 3
	}
}

func (g *drawing) state(st *stage) {
	fill := "#eef3fb"
	if st.end {
		fill = "#e4f5e6"
	}
	fill, stroke, width := g.colours(st.name, fill)
	y := g.y(st.name)
	g.say(`<rect x="%.0f" y="%.0f" width="%d" height="%d" rx="9" fill="%s" stroke="%s" stroke-width="%.1f"/>`, g.left, y, boxWidth, boxHeight, fill, stroke, width)
	if st.end {
		g.say(`<rect x="%.0f" y="%.0f" width="%d" height="%d" rx="6" fill="none" stroke="%s"/>`, g.left+3.5, y+3.5, boxWidth-7, boxHeight-7, stroke)
	}
	at := y + boxHeight/2 + 4
	if do := st.do.says(); do != "" {
		at -= 8
		g.say(`<text x="%.0f" y="%.0f" text-anchor="middle" fill="#556">%s</text>`, g.left+boxWidth/2, y+boxHeight-10, html.EscapeString(fitting(do, boxWidth)))
	}
	g.say(`<text x="%.0f" y="%.0f" text-anchor="middle" font-size="13" font-weight="bold" fill="#223">%s</text>`, g.left+boxWidth/2, at, html.EscapeString(st.name))
}

func fitting(text string, width float64) string {
	if most := int(width/charWidth) - 1; len(text) > most {
		return text[:most-1] + "…"
	}
	return text
}

// compensation draws the column of what is undone.
func (g *drawing) compensation() {
	last := 0
	for n, st := range g.d.saga.states {
		if !st.undo.none() || slices.ContainsFunc(g.edges, func(e edge) bool { return e.from == st.name && e.to == Compensating }) {
			last = n
		}
	}
	fill, stroke, width := g.colours(Compensating, "#fdf1ef")
	bottom := g.top + float64(last)*rowHeight + boxHeight
	g.say(`<rect x="%.0f" y="%.0f" width="%d" height="%.0f" rx="9" fill="%s" stroke="%s" stroke-width="%.1f"/>`, g.bar, g.top-6, barWidth, bottom-g.top+12, fill, stroke, width)
	fill, stroke, width = g.colours(string(Compensated), "#fff")
	g.say(`<rect x="%.0f" y="%.0f" width="%d" height="22" rx="9" fill="%s" stroke="%s" stroke-width="%.1f"/>`, g.bar+25, g.top-46, barWidth-50, fill, stroke, width)
	g.say(`<text x="%.0f" y="%.0f" text-anchor="middle" font-size="12" font-weight="bold" fill="#223">%s</text>`, g.bar+barWidth/2, g.top-31, Compensated)
	g.line("#b03a2e", "M%.0f %.0fV%.0f", g.bar+barWidth/2, g.top-6, g.top-22)
	g.say(`<text x="%.0f" y="%.0f" text-anchor="middle" fill="#b03a2e">compensating, from below</text>`, g.bar+barWidth/2, bottom+22)
	above := -1.0
	for _, st := range g.d.saga.states {
		undo := st.undo.says()
		if undo == "" {
			continue
		}
		y := g.y(st.name) + boxHeight/2 + 4
		step, edge, heavy := "#fff", "#d9a79f", 1.0
		if w := g.working(); w == st.name {
			step, edge, heavy = "#ffe08a", "#b8860b", 2.5
		}
		g.say(`<rect x="%.0f" y="%.0f" width="%d" height="26" rx="5" fill="%s" stroke="%s" stroke-width="%.1f"/>`, g.bar+10, y-17, barWidth-20, step, edge, heavy)
		g.say(`<text x="%.0f" y="%.0f" text-anchor="middle" fill="#7b2d22">%s</text>`, g.bar+barWidth/2, y, html.EscapeString(fitting(undo, barWidth-20)))
		if above >= 0 {
			g.line("#b03a2e", "M%.0f %.0fV%.0f", g.bar+barWidth/2, y-17, above+10)
		}
		above = y
	}
}

// working is the state whose undo is under way.
func (g *drawing) working() string {
	if state, _ := g.d.present(); state == Compensating && g.d.now.Work != nil {
		return g.d.now.Work.State
	}
	return ""
}
