package sqlstate

import (
	"container/list"
	"context"
	"database/sql"
	"sync"
)

// A Prepared keeps the statements prepared that are asked again and again, those used last, so that the engine need not read
// them each time. One that is asked for the first time is not prepared. It is safe for concurrent use.
type Prepared struct {
	db   *sql.DB
	most int
	full func(err error) bool // the engine has no room for another prepared statement; nil: it always has

	mu     sync.Mutex
	texts  map[string]*list.Element
	latest list.List // of *prepared, the one used last in front
}

// prepared is one statement's text that has been asked, and the statement when it was asked again.
type prepared struct {
	text  string
	stmt  *sql.Stmt // nil: not prepared
	busy  bool      // being prepared
	users int
	gone  bool // the last user closes it
}

// NewPrepared keeps so many statements of a database at most. full recognises the error of an engine that has no room for
// another prepared statement; nil if there is none.
func NewPrepared(db *sql.DB, most int, full func(err error) bool) *Prepared {
	return &Prepared{db: db, most: most, full: full, texts: map[string]*list.Element{}}
}

// Query is sql.DB's. The text has to be of the program's making: what comes from outside is bound, or there would be no end
// of texts.
func (p *Prepared) Query(ctx context.Context, text string, args ...any) (*sql.Rows, error) {
	s := p.take(ctx, text)
	if s == nil {
		return p.db.QueryContext(ctx, text, args...)
	}
	rows, err := s.stmt.QueryContext(ctx, args...)
	p.release(s)
	if err != nil && p.full != nil && p.full(err) {
		return p.db.QueryContext(ctx, text, args...)
	}
	return rows, err
}

// take returns the prepared statement of a text, or nil if there is none yet.
func (p *Prepared) take(ctx context.Context, text string) *prepared {
	p.mu.Lock()
	defer p.mu.Unlock()
	element, known := p.texts[text]
	if !known {
		p.texts[text] = p.latest.PushFront(&prepared{text: text})
		for p.latest.Len() > p.most {
			p.drop(p.latest.Back())
		}
		return nil
	}
	p.latest.MoveToFront(element)
	s := element.Value.(*prepared) //nolint:forcetypeassert // nothing else is in the list
	if s.stmt == nil {
		if s.busy {
			return nil
		}
		s.busy = true
		p.mu.Unlock()
		stmt, err := p.db.PrepareContext(ctx, text)
		p.mu.Lock()
		s.busy = false
		if err != nil { // the statement itself will say what is wrong
			if !s.gone {
				p.drop(element)
			}
			return nil
		}
		s.stmt = stmt
	}
	s.users++
	return s
}

func (p *Prepared) release(s *prepared) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if s.users--; s.gone && s.users == 0 {
		_ = s.stmt.Close()
	}
}

// drop forgets a statement. One that is being prepared is closed by the one who does that.
func (p *Prepared) drop(element *list.Element) {
	s := p.latest.Remove(element).(*prepared) //nolint:forcetypeassert // nothing else is in the list
	delete(p.texts, s.text)
	s.gone = true
	if s.stmt != nil && s.users == 0 {
		_ = s.stmt.Close()
	}
}

// Close closes the statements. Later ones are asked unprepared.
func (p *Prepared) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.most = 0
	for p.latest.Len() > 0 {
		p.drop(p.latest.Back())
	}
}
