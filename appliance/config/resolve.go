package config

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Name is the program's name, in paths and messages.
const Name = "glidefs-appliance"

// Where root's files are.
const (
	rootState  = "/var/lib/" + Name
	rootCache  = "/var/cache/" + Name
	rootStore  = "/srv/glidefs"
	etc        = "/etc/" + Name
	MountFiles = etc + "/mounts"       // NAME.toml: what `mount NAME` does
	MountDirs  = "/srv/glidefs-mounts" // where `mount NAME` mounts by default
)

// Given is what the command line and the environment said; empty means nothing.
type Given struct{ Store, StateDir, Config string }

// Env fills what is empty from the environment. A variable set to the empty string counts as unset.
func (g Given) Env(getenv func(string) string) Given {
	for _, v := range []struct {
		field *string
		name  string
	}{{&g.Store, "GLIDEFS_STORE"}, {&g.StateDir, "GLIDEFS_STATE_DIR"}, {&g.Config, "GLIDEFS_CONFIG"}} {
		if *v.field == "" {
			*v.field = getenv(v.name)
		}
	}
	return g
}

// Settings is everything settled.
type Settings struct {
	// Store is the URL that was asked for, by flag, environment or file; empty: the one the state dir has recorded, else
	// DefaultStore.
	Store        string
	DefaultStore string
	StateDir     string
	CacheDir     string
	ConfigPath   string // as given; empty for the default place
	File         File
}

// Resolve settles paths for the user uid, whose home and XDG folders getenv tells.
func Resolve(g Given, uid int, getenv func(string) string) (Settings, error) {
	g = g.Env(getenv)
	def := defaults(uid, getenv)
	file, err := Load(first(g.Config, def.ConfigPath), g.Config != "")
	if err != nil {
		return Settings{}, err
	}
	s := Settings{
		Store:        first(g.Store, file.Store),
		DefaultStore: def.Store,
		StateDir:     first(g.StateDir, file.StateDir, def.StateDir),
		ConfigPath:   g.Config,
		File:         file,
	}
	if s.StateDir == "" {
		return Settings{}, errors.New("HOME is not set: say where the state goes with --state-dir DIR")
	}
	for _, p := range []*string{&s.StateDir, &s.ConfigPath} {
		if *p == "" {
			continue
		}
		if *p, err = filepath.Abs(*p); err != nil {
			return Settings{}, fmt.Errorf("config: %w", err)
		}
	}
	// Two daemons must not share a cache: a state dir elsewhere has its cache inside.
	s.CacheDir = first(file.CacheDir, def.CacheDir)
	if file.CacheDir == "" && s.StateDir != def.StateDir {
		s.CacheDir = filepath.Join(s.StateDir, "cache")
	}
	return s, nil
}

// Command is how to type one of our commands so that it means the state dir of these settings.
func (s Settings) Command(words string) string { return s.Program() + " " + words }

// Program is what such a command begins with, whatever variables are set where it is typed.
func (s Settings) Program() string {
	plain := func(name string) string {
		if strings.HasPrefix(name, "GLIDEFS_") {
			return ""
		}
		return os.Getenv(name)
	}
	if def, err := Resolve(Given{}, os.Geteuid(), plain); err == nil && def.StateDir == s.StateDir {
		return Name
	}
	return Name + " --state-dir " + s.StateDir
}

// defaults leaves paths empty that need HOME when there is none.
func defaults(uid int, getenv func(string) string) Settings {
	if uid == 0 {
		return Settings{Store: "file://" + rootStore, StateDir: rootState, CacheDir: rootCache, ConfigPath: etc + "/config.toml"}
	}
	home := getenv("HOME")
	xdg := func(env, below string) string {
		if dir := getenv(env); dir != "" {
			return dir
		}
		return filepath.Join(home, below)
	}
	if home == "" && (getenv("XDG_DATA_HOME") == "" || getenv("XDG_STATE_HOME") == "" || getenv("XDG_CACHE_HOME") == "") {
		return Settings{}
	}
	return Settings{
		Store:      "file://" + filepath.Join(xdg("XDG_DATA_HOME", ".local/share"), "glidefs"),
		StateDir:   filepath.Join(xdg("XDG_STATE_HOME", ".local/state"), Name),
		CacheDir:   filepath.Join(xdg("XDG_CACHE_HOME", ".cache"), Name),
		ConfigPath: filepath.Join(xdg("XDG_CONFIG_HOME", ".config"), Name, "config.toml"),
	}
}

func first(s ...string) string {
	for _, v := range s {
		if v != "" {
			return v
		}
	}
	return ""
}

// SyncTimeoutOr returns the configured time without the store after which a sync gives up.
func (f File) SyncTimeoutOr(def time.Duration) time.Duration {
	if f.SyncTimeout > 0 {
		return time.Duration(f.SyncTimeout)
	}
	return def
}
