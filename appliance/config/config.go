// Package config reads the configuration file and settles where everything lives.
//
// The file is TOML; every key is optional and an unknown key is an error:
//
//	store          = "file:///srv/glidefs"   # or s3://bucket/prefix?endpoint=https://...&region=...
//	state_dir      = "/var/lib/glidefs-appliance"
//	cache_dir      = "/var/cache/glidefs-appliance"
//	log_size       = "8G"      # write logs of all disks; default 10 % of the file system, 1G to 32G
//	cache_size     = "50G"     # clean cache; default 20 % of the file system
//	upload_age     = "10s"     # the oldest write waits this long before it is uploaded
//	read_timeout   = "30s"     # a read of data that is only in the store gives up after this
//	sync_timeout   = "60s"     # commands that need the store give up when it is away for this long
//	upload_limit   = "20M"     # bytes per second; default none
//	download_limit = "100M"    # bytes per second; default none
//	store_requests = 32        # concurrent requests to the store
//	verify_reads   = "once"    # or "always": check cached data at every read
//	frontend       = "auto"    # or ublk-zc, ublk-copy, fuse: how disks are served when nobody says otherwise
//	debug          = false     # log more: requests that failed, the steps that made a block device
//
// What wins: a flag, then its environment variable (an empty one counts as unset), then the file, then the default.
package config

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/pelletier/go-toml/v2"
)

// File is a parsed configuration file; a zero field was not given.
type File struct {
	Store         string   `toml:"store"`
	StateDir      string   `toml:"state_dir"`
	CacheDir      string   `toml:"cache_dir"`
	LogSize       Size     `toml:"log_size"`
	CacheSize     Size     `toml:"cache_size"`
	UploadAge     Duration `toml:"upload_age"`
	ReadTimeout   Duration `toml:"read_timeout"`
	SyncTimeout   Duration `toml:"sync_timeout"`
	UploadLimit   Size     `toml:"upload_limit"`
	DownloadLimit Size     `toml:"download_limit"`
	StoreRequests int      `toml:"store_requests"`
	VerifyReads   string   `toml:"verify_reads"`
	Frontend      string   `toml:"frontend"`
	Debug         bool     `toml:"debug"`
}

// Mount is a file /etc/glidefs-appliance/mounts/NAME.toml: what `mount NAME` without a directory does. A zero field
// means the command's default.
type Mount struct {
	Dir      string `toml:"dir"`
	Size     Size   `toml:"size"`
	FS       string `toml:"fs"`
	Frontend string `toml:"frontend"`
	ReadOnly bool   `toml:"read_only"`
}

// Frontends are the ways to serve a disk; auto takes the first one that the host can do.
var Frontends = []string{"auto", "ublk-zc", "ublk-copy", "fuse"}

// Duration is a time span such as "10s" or "2m" in a file; never negative.
type Duration time.Duration

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	if err != nil || v <= 0 {
		return fmt.Errorf("invalid duration %q: write it like 10s, 2m or 24h", b)
	}
	*d = Duration(v)
	return nil
}

// Parse decodes and checks a configuration file.
func Parse(b []byte) (File, error) {
	var f File
	if err := decode(b, &f); err != nil {
		return File{}, err
	}
	return f, f.validate()
}

// ParseMount decodes and checks a mount file.
func ParseMount(b []byte) (Mount, error) {
	var m Mount
	if err := decode(b, &m); err != nil {
		return Mount{}, err
	}
	if m.Dir != "" && !filepath.IsAbs(m.Dir) {
		return Mount{}, fmt.Errorf("dir = %q must be an absolute path", m.Dir)
	}
	return m, nil
}

func decode(b []byte, into any) error {
	d := toml.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	err := d.Decode(into)
	if strict := (*toml.StrictMissingError)(nil); errors.As(err, &strict) {
		line, _ := strict.Errors[0].Position()
		return fmt.Errorf("line %d: unknown key %q", line, strings.Join(strict.Errors[0].Key(), "."))
	}
	if de := (*toml.DecodeError)(nil); errors.As(err, &de) {
		line, _ := de.Position()
		return fmt.Errorf("line %d: %s", line, strings.TrimPrefix(de.Error(), "toml: "))
	}
	return err
}

func (f File) validate() error {
	for key, dir := range map[string]string{"state_dir": f.StateDir, "cache_dir": f.CacheDir} {
		if dir != "" && !filepath.IsAbs(dir) {
			return fmt.Errorf("%s = %q must be an absolute path", key, dir)
		}
	}
	if f.VerifyReads != "" && f.VerifyReads != "once" && f.VerifyReads != "always" {
		return fmt.Errorf("verify_reads = %q: use once or always", f.VerifyReads)
	}
	if f.Frontend != "" && !slices.Contains(Frontends, f.Frontend) {
		return fmt.Errorf("frontend = %q: use one of %s", f.Frontend, strings.Join(Frontends, ", "))
	}
	if f.StoreRequests < 0 || f.StoreRequests > 1024 {
		return fmt.Errorf("store_requests = %d: use 1 to 1024", f.StoreRequests)
	}
	return nil
}

// Load reads the file at path. A missing file is an error only when it was asked for by name.
func Load(path string, asked bool) (File, error) {
	b, err := os.ReadFile(path)
	if !asked && (path == "" || errors.Is(err, fs.ErrNotExist)) {
		return File{}, nil
	}
	if err != nil {
		return File{}, fmt.Errorf("config: %w", err)
	}
	f, err := Parse(b)
	if err != nil {
		return File{}, fmt.Errorf("config %s: %w", path, err)
	}
	return f, nil
}

// LoadMount reads the mount file of a disk below dir; a missing one is the zero Mount.
func LoadMount(dir, name string) (Mount, error) {
	path := filepath.Join(dir, name+".toml")
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Mount{}, nil
	}
	if err != nil {
		return Mount{}, fmt.Errorf("mount file: %w", err)
	}
	m, err := ParseMount(b)
	if err != nil {
		return Mount{}, fmt.Errorf("mount file %s: %w", path, err)
	}
	return m, nil
}
