"""MovingMNIST and N-body MNIST: generators and readers of their files."""
