/* The first program of a VM that is saved and cloned: it answers each line with how many there were, so that
   an answer says where the guest went on. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <linux/vm_sockets.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <unistd.h>

static void load_modules(void) {
    char line[256], path[300];
    FILE *modules = fopen("/anteroom/modules", "r");
    while (modules && fgets(line, sizeof line, modules)) {
        line[strcspn(line, "\n")] = 0;
        snprintf(path, sizeof path, "/%s", line);
        int module = open(path, O_RDONLY | O_CLOEXEC);
        syscall(SYS_finit_module, module, "", 0);
        close(module);
    }
}

/* QEMU's link: a port, whose device is made while drivers start. */
static int open_port(void) {
    char path[300];
    DIR *ports = opendir("/sys/class/virtio-ports");
    struct dirent *entry;
    int port = -1;
    while (port < 0 && ports && (entry = readdir(ports)))
        if (entry->d_name[0] == 'v') {
            snprintf(path, sizeof path, "/dev/%s", entry->d_name);
            port = open(path, O_RDWR | O_CLOEXEC);
        }
    if (ports) closedir(ports);
    return port;
}

static int vsock(unsigned cid, struct sockaddr_vm *address) {
    *address = (struct sockaddr_vm){.svm_family = AF_VSOCK, .svm_cid = cid, .svm_port = 1024};
    return socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC, 0);
}

int main(void) {
    char text[256];
    struct sockaddr_vm address;
    mount("proc", "/proc", "proc", 0, 0);
    mount("sys", "/sys", "sysfs", 0, 0);
    mount("dev", "/dev", "devtmpfs", 0, 0);
    load_modules();
    int link = -1, listener = -1, answered = 0;
    while (link < 0) {
        link = open_port();
        if (link >= 0) break;
        int host = vsock(VMADDR_CID_HOST, &address);
        if (host >= 0 && connect(host, (struct sockaddr *)&address, sizeof address) == 0) {
            /* Firecracker's: a clone's host connects, the template's did not. */
            link = host;
            listener = vsock(VMADDR_CID_ANY, &address);
            bind(listener, (struct sockaddr *)&address, sizeof address);
            listen(listener, 4);
        } else {
            close(host);
            usleep(10000);
        }
    }
    dprintf(link, "ready\n");
    for (;;) {
        ssize_t length = read(link, text, sizeof text - 1);
        if (length > 0) {
            text[length] = 0;
            dprintf(link, "%d %s", ++answered, text);
        } else if (listener >= 0) {
            close(link);
            link = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        } else {
            usleep(10000);
        }
    }
}
