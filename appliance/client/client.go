// Package client talks to the daemon of a state dir, and starts one when there is none.
package client

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"

	"glidefs-appliance/appliance/api"
	"glidefs-appliance/appliance/statedir"
)

// Client is one connection to a daemon, which does not end while the connection stands. Its methods return *api.Error
// for what the daemon refused. Not for concurrent use, except Close.
type Client struct {
	dir  statedir.Dir
	http *http.Client
	// Daemon is what the daemon said of itself.
	Daemon api.Daemon
}

// Errors of Dial.
var (
	ErrNone  = errors.New("no daemon is running")
	ErrStuck = errors.New("the daemon does not answer")
)

// Dial connects to the running daemon of dir. It fails with ErrNone, or with ErrStuck when there is one that stays
// silent for the given time.
func Dial(ctx context.Context, dir statedir.Dir, patience time.Duration) (*Client, error) {
	conn := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialUnix(ctx, dir.Socket())
		},
		MaxConnsPerHost: 1,
	}
	c := &Client{dir: dir, http: &http.Client{Transport: conn}}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := c.call(ctx, http.MethodGet, "/v1/daemon", nil, &c.Daemon); err != nil {
		c.Close()
		return nil, classify(ctx, err)
	}
	return c, nil
}

func classify(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ErrStuck
	}
	// Nobody listens, the one who listened has just gone, or is about to.
	return fmt.Errorf("%w: %w", ErrNone, err)
}

// Close lets the daemon end.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Disks returns what status shows.
func (c *Client) Disks(ctx context.Context) (disks []api.Disk, err error) {
	return disks, c.call(ctx, http.MethodGet, "/v1/disks", nil, &disks)
}

// Attach attaches a disk.
func (c *Client) Attach(ctx context.Context, name string, a api.Attach) (r api.Attached, err error) {
	return r, c.call(ctx, http.MethodPost, disk(name, "attach"), a, &r)
}

// Detach detaches a disk and uploads nothing.
func (c *Client) Detach(ctx context.Context, name string, d api.Detach) (r api.Detached, err error) {
	return r, c.call(ctx, http.MethodPost, disk(name, "detach"), d, &r)
}

// Resize grows a disk.
func (c *Client) Resize(ctx context.Context, name string, size int64) (r api.Resized, err error) {
	return r, c.call(ctx, http.MethodPost, disk(name, "resize"), api.Resize{Size: size}, &r)
}

// Salvage makes the disk as of what this host has of name.
func (c *Client) Salvage(ctx context.Context, name, as string, progress func(api.Progress)) error {
	_, err := c.stream(ctx, disk(name, "salvage"), api.Salvage{As: as}, progress)
	return err
}

// Abandon drops this host's log of a disk.
func (c *Client) Abandon(ctx context.Context, name string, dry bool) (r api.Abandoned, err error) {
	return r, c.call(ctx, http.MethodPost, disk(name, "abandon"), api.Abandon{Dry: dry}, &r)
}

// Volumes lists the disks in the store.
func (c *Client) Volumes(ctx context.Context) (list []api.Volume, err error) {
	return list, c.call(ctx, http.MethodGet, "/v1/volumes", nil, &list)
}

// Remove deletes a disk from the store.
func (c *Client) Remove(ctx context.Context, name string) error {
	return c.call(ctx, http.MethodDelete, named("/v1/volumes/", name, ""), nil, nil)
}

// GC removes objects that nothing refers to.
func (c *Client) GC(ctx context.Context, g api.GC) (r api.Collected, err error) {
	return r, c.call(ctx, http.MethodPost, "/v1/gc", g, &r)
}

// Sync uploads everything written up to now; progress is called about once a second.
func (c *Client) Sync(ctx context.Context, name string, progress func(api.Progress)) (api.Synced, error) {
	last, err := c.stream(ctx, disk(name, "sync"), struct{}{}, progress)
	if err != nil || last.Synced == nil {
		return api.Synced{}, err
	}
	return *last.Synced, nil
}

// Verify reads and checks every object of a disk.
func (c *Client) Verify(ctx context.Context, name string, progress func(api.Progress)) (api.Verified, error) {
	last, err := c.stream(ctx, disk(name, "verify"), struct{}{}, progress)
	if err != nil || last.Verified == nil {
		return api.Verified{}, err
	}
	return *last.Verified, nil
}

func disk(name, verb string) string { return named("/v1/disks/", name, "/"+verb) }

// named is a path with a disk's name in it, "" when a path cannot carry the name.
func named(before, name, after string) string {
	if name == "" || name == "." || name == ".." {
		return ""
	}
	return before + url.PathEscape(name) + after
}

var errName = &api.Error{Code: api.CodeInvalid, Message: "a disk has a name: a-z, 0-9, '.', '_' and '-', beginning with a letter or a digit"}

// call sends one request and decodes the answer into out, which may be nil.
func (c *Client) call(ctx context.Context, method, path string, in, out any) error {
	body, err := c.send(ctx, method, path, in)
	if err != nil {
		return err
	}
	defer body.Close()
	if out == nil {
		return nil
	}
	if err := json.NewDecoder(body).Decode(out); err != nil {
		return fmt.Errorf("daemon: %s: %w", path, err)
	}
	// The connection is used again only when the body was read to its end.
	_, err = io.Copy(io.Discard, body)
	return err
}

// stream sends one request and returns the last line of the answer.
func (c *Client) stream(ctx context.Context, path string, in any, progress func(api.Progress)) (api.Line, error) {
	body, err := c.send(ctx, http.MethodPost, path, in)
	if err != nil {
		return api.Line{}, err
	}
	defer body.Close()
	lines := bufio.NewScanner(body)
	lines.Buffer(nil, 64<<20)
	for lines.Scan() {
		var l api.Line
		if err := json.Unmarshal(lines.Bytes(), &l); err != nil {
			return api.Line{}, fmt.Errorf("daemon: %s: %w", path, err)
		}
		switch {
		case l.Error != nil:
			return api.Line{}, l.Error
		case l.Progress == nil:
			return l, nil
		}
		progress(*l.Progress)
	}
	if ctx.Err() != nil {
		return api.Line{}, context.Cause(ctx)
	}
	if err := lines.Err(); err != nil {
		return api.Line{}, fmt.Errorf("daemon: %w", err)
	}
	return api.Line{}, c.died()
}

func (c *Client) send(ctx context.Context, method, path string, in any) (io.ReadCloser, error) {
	if path == "" {
		return nil, errName
	}
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return nil, err
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://daemon"+path, body)
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	switch {
	case err == nil:
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case c.Daemon.PID != 0:
		return nil, c.died()
	default:
		return nil, err
	}
	if resp.StatusCode < 400 {
		return resp.Body, nil
	}
	defer resp.Body.Close()
	e := &api.Error{Code: api.CodeInternal}
	if err := json.NewDecoder(resp.Body).Decode(e); err != nil || e.Message == "" {
		e.Message = "daemon: " + resp.Status
	}
	return nil, e
}

// died is what happened when a daemon that had answered went away in the middle of a request.
func (c *Client) died() error {
	return fmt.Errorf("the daemon (process %d) died; everything written is safe in its log, and the next start goes on from there; why: %s",
		c.Daemon.PID, c.dir.Log())
}
