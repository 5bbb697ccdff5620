package dir

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"glidefs-appliance/backend/store"
)

// The xattr holds "version size mtime": a body changed in place by something else (rsync --inplace, an editor) no
// longer fits, and then the version doesn't count.
const versionAttr = "user.glidefs.version"

// hashAtMost is the size in bytes up to which an object without a version is hashed for a ranged GET or a listing.
const hashAtMost = 1 << 20

func stamp(version string, fi os.FileInfo) string {
	return fmt.Sprintf("%s %d %d", version, fi.Size(), fi.ModTime().UnixNano())
}

// setVersion gives the finished body in f a new version and returns the ETag; body is hashed where f can't hold one.
func setVersion(f *os.File, body []byte) (string, error) {
	fi, err := f.Stat()
	if err != nil {
		return "", err
	}
	version := strings.ToLower(rand.Text())
	if err := fsetxattr(f, versionAttr, stamp(version, fi)); err != nil {
		return hashTag(body), nil // the reason does not matter: without it the hash is the ETag
	}
	return "v-" + version, nil
}

// tagOf returns the ETag of the open object f, or "" if f has no version and is larger than hashAtMost.
func tagOf(f *os.File, fi os.FileInfo, hashAtMost int64) (string, error) {
	if value := fgetxattr(f, versionAttr); value != "" {
		version, _, _ := strings.Cut(value, " ")
		if value == stamp(version, fi) {
			return "v-" + version, nil
		}
	}
	if fi.Size() > hashAtMost {
		return "", nil
	}
	h := sha256.New()
	if _, err := io.Copy(h, io.NewSectionReader(f, 0, fi.Size())); err != nil {
		return "", err
	}
	return "s-" + hex.EncodeToString(h.Sum(nil)), nil
}

func hashTag(body []byte) string {
	sum := sha256.Sum256(body)
	return "s-" + hex.EncodeToString(sum[:])
}

func infoOf(key string, fi os.FileInfo, etag string) store.Info {
	return store.Info{Key: key, Size: fi.Size(), ETag: etag, Modified: fi.ModTime()}
}

// fsetxattr and fgetxattr work on the descriptor, so that version and body are of one file even while a PUT replaces it;
// package syscall has them by path only.
func fsetxattr(f *os.File, name, value string) error {
	n, err := syscall.BytePtrFromString(name)
	if err != nil {
		return err
	}
	v := []byte(value)
	_, _, e := syscall.Syscall6(syscall.SYS_FSETXATTR, f.Fd(), uintptr(unsafe.Pointer(n)),
		uintptr(unsafe.Pointer(&v[0])), uintptr(len(v)), 0, 0)
	if e != 0 {
		return e
	}
	return nil
}

// fgetxattr returns "" if there is none, or none that we wrote.
func fgetxattr(f *os.File, name string) string {
	n, err := syscall.BytePtrFromString(name)
	if err != nil {
		return ""
	}
	var v [128]byte
	size, _, e := syscall.Syscall6(syscall.SYS_FGETXATTR, f.Fd(), uintptr(unsafe.Pointer(n)),
		uintptr(unsafe.Pointer(&v[0])), uintptr(len(v)), 0, 0)
	if e != 0 {
		return ""
	}
	return string(v[:size])
}

// utimeNow asks the file system to use its own clock.
const utimeNow = 1<<30 - 1

// touch sets the times of path, made if missing, to now and reads them back.
func touch(path string) (time.Time, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return time.Time{}, err
	}
	defer f.Close()
	now := []syscall.Timespec{{Nsec: utimeNow}, {Nsec: utimeNow}}
	if err := syscall.UtimesNano(path, now); err != nil {
		return time.Time{}, &os.PathError{Op: "touch", Path: path, Err: err}
	}
	fi, err := f.Stat()
	if err != nil {
		return time.Time{}, err
	}
	return fi.ModTime(), nil
}
