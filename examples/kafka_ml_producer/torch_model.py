# Four lengths of an iris in centimetres; which of three kinds is it?
# Only the model: Headrace builds it in a sandbox, where `torch`, `nn`, `F`, `Accuracy` and `Loss` are there already.
class Iris(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3))

    def forward(self, x):
        return self.layers(x)

    def loss_fn(self):
        return nn.CrossEntropyLoss()

    def optimizer(self):
        return torch.optim.Adam(model.parameters(), lr=0.02)

    def metrics(self):
        return {"accuracy": Accuracy(), "loss": Loss(self.loss_fn())}


model = Iris()
