/* A VM with a vhost worker and nothing to run: its vCPU's thread sleeps, and the guest's side of
 * vhost-vsock's queue is kicked as a guest would, once for each line of its input.
 *
 * Each kick wakes the worker, which finds the queue without a backend and sleeps again
 * (drivers/vhost/vsock.c, vhost_vsock_handle_tx_kick). */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/kvm.h>
#include <linux/vhost.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <unistd.h>

enum { KICKS = 20000 };

static int checked(int result, const char *what)
{
    if (result < 0) {
        perror(what);
        exit(1);
    }
    return result;
}

static void *vcpu(void *unused)
{
    (void)unused;
    prctl(PR_SET_NAME, "CPU 0/KVM");
    for (;;)
        pause();
    return NULL;
}

int main(void)
{
    int kvm = checked(open("/dev/kvm", O_RDWR), "/dev/kvm");
    int vm = checked(ioctl(kvm, KVM_CREATE_VM, 0), "KVM_CREATE_VM");
    checked(ioctl(vm, KVM_CREATE_VCPU, 0), "KVM_CREATE_VCPU");
    pthread_t thread;
    if (pthread_create(&thread, NULL, vcpu, NULL) != 0)
        return 1;

    int vhost = checked(open("/dev/vhost-vsock", O_RDWR), "/dev/vhost-vsock");
    checked(ioctl(vhost, VHOST_SET_OWNER), "VHOST_SET_OWNER");
    struct vhost_vring_file kick = { .index = 1, .fd = checked(eventfd(0, 0), "eventfd") };
    checked(ioctl(vhost, VHOST_SET_VRING_KICK, &kick), "VHOST_SET_VRING_KICK");

    puts("ready");
    fflush(stdout);
    while (getchar() == '\n') {
        for (int n = 0; n < KICKS; n++) {
            uint64_t one = 1;
            checked(write(kick.fd, &one, sizeof one), "a kick");
        }
        puts("kicked");
        fflush(stdout);
    }
    return 0;
}
