package wlog

import (
	"context"

	"glidefs-appliance/backend/vfs"
)

type (
	Log     struct{}
	Segment struct{}
	Budget  struct{}
)

func Exists(fs vfs.FS, dir string) bool                                         { panic("") }
func Open(o Options) (*Log, error)                                              { panic("") }
func (l *Log) Head() Head                                                       { panic("") }
func (l *Log) End() Barrier                                                     { panic("") }
func (l *Log) Contains(b Barrier) bool                                          { panic("") }
func (l *Log) Records(after uint64, fn func(Record, *Segment) error) error      { panic("") }
func (l *Log) DropThrough(seq uint64)                                           { panic("") }
func (l *Log) Start(id LogID) error                                             { panic("") }
func (l *Log) Reserve(ctx context.Context, n int64, dst []Span) ([]Span, error) { panic("") }
func (l *Log) TryReserve(n int64, dst []Span) ([]Span, bool)                    { panic("") }
func (l *Log) Abandon(spans []Span)                                             { panic("") }
func (l *Log) Append(recs []Record, spans []Span) (last uint64)                 { panic("") }
func (l *Log) Commit(seq uint64) error                                          { panic("") }
func (l *Log) Flush() error                                                     { panic("") }
func (l *Log) Acquire(number uint32) *Segment                                   { panic("") }
func (l *Log) Settle(b Barrier) error                                           { panic("") }
func (l *Log) LastSeq() uint64                                                  { panic("") }
func (l *Log) LastBarrier() Barrier                                             { panic("") }
func (l *Log) DurableSeq() uint64                                               { panic("") }
func (l *Log) Bytes() int64                                                     { panic("") }
func (l *Log) Unsettled() (bytes int64, writes uint64)                          { panic("") }
func (l *Log) Kill(err error)                                                   { panic("") }
func (l *Log) Close() error                                                     { panic("") }
func (l *Log) Failed() error                                                    { panic("") }
func (l *Log) Remove() error                                                    { panic("") }
func (s *Segment) WriteAt(p []byte, off int64) error                            { panic("") }
func (s *Segment) ReadAt(p []byte, off int64) error                             { panic("") }
func (s *Segment) File() vfs.File                                               { panic("") }
func (s *Segment) Number() uint32                                               { panic("") }
func (s *Segment) Release()                                                     { panic("") }
func (s *Segment) Records(fn func(Record) error) error                          { panic("") }
func NewBudget(total int64) *Budget                                             { panic("") }
func (b *Budget) Used() int64                                                   { panic("") }
func (b *Budget) Total() int64                                                  { panic("") }
func (b *Budget) Waiting() int                                                  { panic("") }
