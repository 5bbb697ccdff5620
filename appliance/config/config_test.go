package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const full = `
store = "s3://bucket/prefix?endpoint=http://127.0.0.1:7070&region=us-east-1"
state_dir = "/s"
cache_dir = "/c"
log_size = "8G"
cache_size = "50G"
upload_age = "3s"
read_timeout = "1m"
sync_timeout = "2m"
upload_limit = "20M"
download_limit = "100M"
store_requests = 16
verify_reads = "always"
`

func TestParse(t *testing.T) {
	f, err := Parse([]byte(full))
	if err != nil {
		t.Fatal(err)
	}
	want := File{
		Store:    "s3://bucket/prefix?endpoint=http://127.0.0.1:7070&region=us-east-1",
		StateDir: "/s", CacheDir: "/c", LogSize: 8 << 30, CacheSize: 50 << 30,
		UploadAge: Duration(3 * time.Second), ReadTimeout: Duration(time.Minute), SyncTimeout: Duration(2 * time.Minute),
		UploadLimit: 20 << 20, DownloadLimit: 100 << 20, StoreRequests: 16, VerifyReads: "always",
	}
	if f != want {
		t.Errorf("got %+v\nwant %+v", f, want)
	}
}

func TestParseErrors(t *testing.T) {
	for text, want := range map[string]string{
		"store = \"x\"\nstor = 1":   `line 2: unknown key "stor"`,
		"[store]\nurl = 1":          "line 1",
		"log_size = \"8GB\"":        `invalid size "8GB"`,
		"upload_age = \"soon\"":     `invalid duration "soon"`,
		"upload_age = \"-1s\"":      `invalid duration "-1s"`,
		"cache_dir = \"here\"":      "absolute",
		"verify_reads = \"never\"":  "once or always",
		"store_requests = 1000000":  "1 to 1024",
		"store = \"a\"\nstore = \"": "line 2",
	} {
		if _, err := Parse([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %q", text, err, want)
		}
	}
}

func TestParseSize(t *testing.T) {
	for text, want := range map[string]Size{
		"0": 0, "1": 1, "4096": 4096, "512K": 512 << 10, "512k": 512 << 10, "10G": 10 << 30, "10Gi": 10 << 30,
		"10GiB": 10 << 30, "2T": 2 << 40, "7P": 7 << 50, "9223372036854775807": 1<<63 - 1, "8191P": 8191 << 50,
	} {
		if got, err := ParseSize(text); err != nil || got != want {
			t.Errorf("%q: got %d, %v; want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "G", "-1", "+1", "1.5G", "10GB", "10B", "1 G", "ten", "8192P", "9223372036854775808", "1GG", "1i", "0x10", "1_0"} {
		if got, err := ParseSize(text); err == nil {
			t.Errorf("%q: got %d, want an error", text, got)
		}
	}
}

func TestHuman(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 999: "999 B", 1000: "0.98 KiB", 4096: "4.00 KiB", 10 << 30: "10.0 GiB", 999 << 20: "999 MiB"} {
		if got := Human(n); got != want {
			t.Errorf("%d: got %q, want %q", n, got, want)
		}
	}
}

func FuzzParseSize(f *testing.F) {
	for _, s := range []string{"0", "10G", "512M", "8191P", "4096KiB", "GB", "99999999999999999999", "\xff"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		n, err := ParseSize(s)
		if err != nil {
			return
		}
		if n < 0 {
			t.Fatalf("%q is %d", s, n)
		}
		if again, err := ParseSize(n.String()); err != nil || again != n {
			t.Fatalf("%q is %d, printed %s, which is %d, %v", s, n, n, again, err)
		}
	})
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(full))
	f.Add([]byte("[a]\nb = 1"))
	f.Add([]byte("log_size = \"99999999P\""))
	f.Add([]byte("dir = \"/x\"\nsize = \"1G\"\nread_only = true"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if c, err := Parse(b); err == nil && c.validate() != nil {
			t.Fatalf("accepted %+v", c)
		}
		_, _ = ParseMount(b)
	})
}

// settle resolves for a user with the given environment.
func settle(t *testing.T, g Given, uid int, env map[string]string) Settings {
	t.Helper()
	s, err := Resolve(g, uid, func(k string) string { return env[k] })
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestResolveDefaults(t *testing.T) {
	home := t.TempDir()
	user := settle(t, Given{}, 1000, map[string]string{"HOME": home, "XDG_CACHE_HOME": "/fast"})
	if user.StateDir != home+"/.local/state/glidefs-appliance" || user.CacheDir != "/fast/glidefs-appliance" ||
		user.DefaultStore != "file://"+home+"/.local/share/glidefs" || user.Store != "" {
		t.Errorf("user: %+v", user)
	}
	moved := settle(t, Given{StateDir: "/elsewhere"}, 1000, map[string]string{"HOME": home})
	if moved.CacheDir != "/elsewhere/cache" {
		t.Errorf("a state dir of its own shares the cache at %s", moved.CacheDir)
	}
	if d := defaults(0, nil); d.StateDir != "/var/lib/glidefs-appliance" || d.CacheDir != "/var/cache/glidefs-appliance" || d.Store != "file:///srv/glidefs" {
		t.Errorf("root: %+v", d)
	}
	if _, err := Resolve(Given{}, 1000, func(string) string { return "" }); err == nil || !strings.Contains(err.Error(), "--state-dir") {
		t.Errorf("without HOME: %v", err)
	}
}

func TestResolvePrecedence(t *testing.T) {
	file := filepath.Join(t.TempDir(), "c.toml")
	if err := os.WriteFile(file, []byte("store = \"file:///from-file\"\nstate_dir = \"/from-file\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	env := map[string]string{"HOME": "/h", "GLIDEFS_CONFIG": file, "GLIDEFS_STORE": "file:///from-env", "GLIDEFS_STATE_DIR": ""}
	s := settle(t, Given{}, 1000, env)
	if s.Store != "file:///from-env" || s.StateDir != "/from-file" {
		t.Errorf("environment over file, empty variable is unset: %+v", s)
	}
	if s := settle(t, Given{Store: "file:///from-flag"}, 1000, env); s.Store != "file:///from-flag" {
		t.Errorf("flag over environment: %+v", s)
	}
	if _, err := Resolve(Given{Config: "/does/not/exist"}, 1000, func(k string) string { return env[k] }); err == nil {
		t.Error("a configuration file that was asked for is missing, and nobody says so")
	}
}

func TestLoadMount(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(dir+"/data.toml", []byte("dir = \"/data\"\nsize = \"20G\"\nfs = \"xfs\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if m, err := LoadMount(dir, "data"); err != nil || m != (Mount{Dir: "/data", Size: 20 << 30, FS: "xfs"}) {
		t.Errorf("got %+v, %v", m, err)
	}
	if m, err := LoadMount(dir, "other"); err != nil || m != (Mount{}) {
		t.Errorf("a missing file: %+v, %v", m, err)
	}
}

// A hint that is typed as it stands must not reach another state dir.
func TestCommand(t *testing.T) {
	t.Setenv("GLIDEFS_STATE_DIR", "/elsewhere")
	if got, want := (Settings{StateDir: "/elsewhere"}).Command("ls"), Name+" --state-dir /elsewhere ls"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	def, err := Resolve(Given{}, os.Geteuid(), func(name string) string { return map[string]string{"HOME": os.Getenv("HOME")}[name] })
	if err != nil {
		t.Fatal(err)
	}
	if got, want := def.Command("ls"), Name+" ls"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
