package store

import (
	"context"
	"time"

	"golang.org/x/time/rate"
)

// bandwidth limits one direction. A rate.Limiter alone serves in order of arrival, so a guest would wait behind all of a
// 16 MiB pack; here a transfer takes its tokens in pieces, and between two pieces the highest class goes first.
type bandwidth struct {
	limiter *rate.Limiter
	turn    *slots // one holder
	piece   int    // bytes; also the burst
}

const (
	minPiece = 4 << 10
	maxPiece = 1 << 20
)

// newBandwidth returns nil, which limits nothing, unless bytesPerSecond > 0.
func newBandwidth(bytesPerSecond int64) *bandwidth {
	if bytesPerSecond <= 0 {
		return nil
	}
	piece := int(min(max(bytesPerSecond/8, minPiece), maxPiece))
	return &bandwidth{
		limiter: rate.NewLimiter(rate.Limit(bytesPerSecond), piece),
		turn:    newSlots(1),
		piece:   piece,
	}
}

// wait returns when n more bytes may be moved, or ctx ends.
func (b *bandwidth) wait(ctx context.Context, c Class, n int64) error {
	if b == nil {
		return nil
	}
	for ; n > 0; n -= int64(b.piece) {
		if err := b.waitPiece(ctx, c, int(min(n, int64(b.piece)))); err != nil {
			return err
		}
	}
	return nil
}

// waitPiece does not use limiter.WaitN, which fails at once when the deadline lies before the tokens.
func (b *bandwidth) waitPiece(ctx context.Context, c Class, n int) error {
	if err := b.turn.acquire(ctx, c); err != nil {
		return err
	}
	defer b.turn.release(c)
	return sleep(ctx, b.limiter.ReserveN(time.Now(), n).Delay())
}

// charge takes the tokens of n bytes that have been moved already; those who come next wait for them.
func (b *bandwidth) charge(n int64) {
	if b == nil {
		return
	}
	for ; n > 0; n -= int64(b.piece) {
		b.limiter.ReserveN(time.Now(), int(min(n, int64(b.piece))))
	}
}

// sleep waits for d or until ctx ends.
func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
